#include "parallel.h"

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
  int (*num_threads)() = nullptr;
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
  find_symbol(library, "omp_get_num_threads", openmp.num_threads);
  find_symbol(library, "omp_get_thread_num", openmp.thread_num);
  find_symbol(library, "omp_in_parallel", openmp.in_parallel);
  const bool complete =
      openmp.parallel && openmp.max_threads && openmp.num_threads && openmp.thread_num && openmp.in_parallel;
  return complete ? openmp : OpenMp();
}
#else
OpenMp load_runtime() { return OpenMp(); }
#endif

const OpenMp& runtime() {
  static const OpenMp openmp = load_runtime();
  return openmp;
}

struct Region {
  const OpenMp& openmp;
  int64_t chunks;
  ChunkFunction function;
  void* context;
};

void run_share(void* argument) {
  const Region& region = *static_cast<const Region*>(argument);
  const int64_t threads = region.openmp.num_threads();
  const int64_t thread = region.openmp.thread_num();
  const int64_t end = region.chunks * (thread + 1) / threads;
  for (int64_t chunk = region.chunks * thread / threads; chunk < end; ++chunk) region.function(region.context, chunk);
}

}  // namespace

int cpu_threads() {
  const OpenMp& openmp = runtime();
  return openmp.parallel && !openmp.in_parallel() ? openmp.max_threads() : 1;
}

void parallel_chunks(int64_t chunks, ChunkFunction function, void* context) {
  // Waking threads for less than this costs more than they save.
  constexpr int64_t worth_threads = 4;
  if (chunks >= worth_threads) {
    const int threads = cpu_threads();
    if (threads > 1) {
      Region region{runtime(), chunks, function, context};
      const int64_t team = chunks < threads ? chunks : threads;
      region.openmp.parallel(run_share, &region, static_cast<unsigned>(team), 0);
      return;
    }
  }
  for (int64_t chunk = 0; chunk < chunks; ++chunk) function(context, chunk);
}

}  // namespace gfl
