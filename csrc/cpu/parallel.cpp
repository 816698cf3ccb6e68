#include "parallel.h"

#include <algorithm>
#include <atomic>

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#endif

namespace gfl {
namespace {

struct OpenMp {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*max_threads)() = nullptr;
  int (*thread_num)() = nullptr;
  int (*in_parallel)() = nullptr;
};

#if defined(__linux__)
// Every OpenMP runtime on Linux speaks GNU's interface; which one is loaded (libgomp.so.1, a wheel's renamed copy of it,
// Intel's or LLVM's) depends on the torch build, so it is found among the loaded libraries and not by a link.
int find_runtime(dl_phdr_info* info, size_t, void* found) {
  const char* slash = std::strrchr(info->dlpi_name, '/');
  const char* name = slash ? slash + 1 : info->dlpi_name;
  const char* const prefixes[] = {"libgomp", "libiomp5", "libomp"};
  for (const char* prefix : prefixes) {
    if (std::strncmp(name, prefix, std::strlen(prefix)) == 0) {
      *static_cast<const char**>(found) = info->dlpi_name;
      return 1;
    }
  }
  return 0;
}

template <class Function>
void find_symbol(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

OpenMp load_runtime() {
  OpenMp openmp;
  const char* path = nullptr;
  dl_iterate_phdr(find_runtime, &path);
  void* library = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : nullptr;
  if (!library) return openmp;
  find_symbol(library, "GOMP_parallel", openmp.parallel);
  find_symbol(library, "omp_get_max_threads", openmp.max_threads);
  find_symbol(library, "omp_get_thread_num", openmp.thread_num);
  find_symbol(library, "omp_in_parallel", openmp.in_parallel);
  const bool complete = openmp.parallel && openmp.max_threads && openmp.thread_num && openmp.in_parallel;
  return complete ? openmp : OpenMp();
}
#else
OpenMp load_runtime() { return OpenMp(); }
#endif

const OpenMp& runtime() {
  static const OpenMp openmp = load_runtime();
  return openmp;
}

// Chunks are dealt out evenly, so that a thread reads one stretch of memory. One that has finished its own helps the
// others: on a busy machine some threads start late or run slowly, and nobody should wait for a whole share of theirs.
struct Region {
  static constexpr int64_t most_threads = 128;
  struct alignas(64) Share {
    std::atomic<int64_t> next;
  };

  const OpenMp& openmp;
  int64_t chunks;
  int64_t team;
  void (*function)(void* context, int64_t chunk);
  void* context;
  Share shares[most_threads];

  int64_t first(int64_t share) const { return chunks * share / team; }

  void run(int64_t thread) {
    for (int64_t i = 0; i < team; ++i) {
      const int64_t share = (thread + i) % team;
      const int64_t end = first(share + 1);
      std::atomic<int64_t>& next = shares[share].next;
      for (int64_t chunk = next.fetch_add(1, std::memory_order_relaxed); chunk < end;
           chunk = next.fetch_add(1, std::memory_order_relaxed)) {
        function(context, chunk);
      }
    }
  }
};

void run_in_team(void* region) { static_cast<Region*>(region)->run(static_cast<Region*>(region)->openmp.thread_num()); }

}  // namespace

int cpu_threads() {
  const OpenMp& openmp = runtime();
  return openmp.parallel && !openmp.in_parallel() ? openmp.max_threads() : 1;
}

void run_by_threads(int64_t chunks, void (*function)(void* context, int64_t chunk), void* context) {
  const int64_t threads = cpu_threads();
  if (threads > 1) {
    Region region{runtime(), chunks, std::min({chunks, threads, Region::most_threads}), function, context, {}};
    for (int64_t share = 0; share < region.team; ++share) region.shares[share].next = region.first(share);
    region.openmp.parallel(run_in_team, &region, static_cast<unsigned>(region.team), 0);
    return;
  }
  for (int64_t chunk = 0; chunk < chunks; ++chunk) function(context, chunk);
}

}  // namespace gfl
