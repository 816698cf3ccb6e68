// Test only: the threads of a block on a host.
//
// As fibers (the default): one after another on one OS thread, each until it waits. Fast, in a fixed order, and strict:
// a barrier that not all threads reach ends the program. Odd blocks run their threads backwards, so that no kernel can
// rely on an order.
// As OS threads (-DGFL_SHIM_THREADS): slow, for ThreadSanitizer, which sees a missing barrier as a race.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <vector>

#if defined(GFL_SHIM_THREADS)
#include <pthread.h>
#include <memory>
#include <thread>
#define GFL_SHIM_OF_A_THREAD thread_local
#else
#include <sys/mman.h>
#include <ucontext.h>
#define GFL_SHIM_OF_A_THREAD
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct ShimIndex {
  unsigned x = 0;
};
inline GFL_SHIM_OF_A_THREAD ShimIndex threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

constexpr int kWarpSize = 32;

[[noreturn]] inline void die(const char* what) {
  std::fprintf(stderr, "cuda_shim: %s (block %u, thread %u)\n", what, blockIdx.x, threadIdx.x);
  std::abort();
}

// Dynamic shared memory of the running block.
class Arena {
 public:
  void renew(int bytes) {
    std::free(data_);
    data_ = nullptr;
    if (bytes > 0 && posix_memalign(&data_, 16, static_cast<size_t>(bytes)) != 0) die("out of memory");
    if (bytes > 0) std::memset(data_, 0xff, static_cast<size_t>(bytes));
  }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};
inline Arena arena;
inline void* dynamic_shared() { return arena.data(); }

// A static variable of shared memory: where it lies, and whether the running kernel has asked for it.
struct StaticMemory {
  void* data;
  size_t bytes;
  std::atomic<bool> asked{false};

  StaticMemory(void* data_, size_t bytes_) : data(data_), bytes(bytes_) { all().push_back(this); }
  static std::vector<StaticMemory*>& all() {
    static std::vector<StaticMemory*> memories;
    return memories;
  }
};
template <class T>
struct StaticMemoryOf {
  alignas(16) static inline T value;
  static inline StaticMemory memory{&value, sizeof(T)};
};
// Relaxed, so that ThreadSanitizer does not take it for an order between the threads of a block.
template <class T>
T& static_shared() {
  StaticMemoryOf<T>::memory.asked.store(true, std::memory_order_relaxed);
  return StaticMemoryOf<T>::value;
}
// How many bytes the kernel that just ran has asked for.
inline int take_static_bytes() {
  size_t bytes = 0;
  for (StaticMemory* memory : StaticMemory::all()) {
    if (memory->asked.exchange(false)) bytes += (memory->bytes + 15) / 16 * 16;
  }
  return static_cast<int>(bytes);
}

// Both kinds as a block finds them.
inline void renew_shared_memory(int dynamic_bytes) {
  arena.renew(dynamic_bytes);
  for (const StaticMemory* memory : StaticMemory::all()) std::memset(memory->data, 0xff, memory->bytes);
}

// What the lanes of each warp show each other.
struct Slot {
  alignas(8) unsigned char bytes[8];
};
inline std::vector<Slot> slots;

inline std::mutex one_grid_at_a_time;

#if defined(GFL_SHIM_THREADS)

struct Barriers {
  explicit Barriers(int threads) : warps(threads / kWarpSize) {
    pthread_barrier_init(&block, nullptr, threads);
    for (pthread_barrier_t& warp : warps) pthread_barrier_init(&warp, nullptr, kWarpSize);
  }
  ~Barriers() {
    pthread_barrier_destroy(&block);
    for (pthread_barrier_t& warp : warps) pthread_barrier_destroy(&warp);
  }
  pthread_barrier_t block;
  std::vector<pthread_barrier_t> warps;
};
inline std::unique_ptr<Barriers> barriers;
inline std::atomic<int> votes;

inline void block_barrier() { pthread_barrier_wait(&barriers->block); }
inline void warp_barrier() { pthread_barrier_wait(&barriers->warps[threadIdx.x / kWarpSize]); }
inline bool block_any(bool vote) {
  if (vote) votes.fetch_add(1, std::memory_order_relaxed);
  block_barrier();
  const bool any = votes.load(std::memory_order_relaxed) != 0;
  block_barrier();
  if (threadIdx.x == 0) votes.store(0, std::memory_order_relaxed);
  block_barrier();
  return any;
}

// Returns the bytes of static shared memory that were asked for.
inline int run_grid(int blocks, int threads, int shared_bytes, const std::function<void()>& body) {
  const std::lock_guard<std::mutex> lock(one_grid_at_a_time);
  barriers = std::make_unique<Barriers>(threads);
  slots.assign(static_cast<size_t>(threads), Slot());
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([=, &body] {
      threadIdx.x = static_cast<unsigned>(t);
      blockDim.x = static_cast<unsigned>(threads);
      gridDim.x = static_cast<unsigned>(blocks);
      for (int b = 0; b < blocks; ++b) {
        blockIdx.x = static_cast<unsigned>(b);
        if (t == 0) renew_shared_memory(shared_bytes);
        block_barrier();
        body();
        block_barrier();
      }
    });
  }
  for (std::thread& thread : pool) thread.join();
  return take_static_bytes();
}

#else

class Fibers {
 public:
  void run_block(int threads, const std::function<void()>& body) {
    while (static_cast<int>(fibers_.size()) < threads) fibers_.push_back(new Fiber(*this));
    body_ = &body;
    threads_ = threads;
    done_ = at_block_ = 0;
    vote_ = false;
    at_warp_.assign(static_cast<size_t>(threads / kWarpSize), 0);
    for (int t = 0; t < threads; ++t) fibers_[t]->state = State::kReady;
    while (done_ < threads) {
      bool moved = false;
      for (int i = 0; i < threads; ++i) {
        const int t = blockIdx.x % 2 ? threads - 1 - i : i;
        if (fibers_[t]->state != State::kReady) continue;
        threadIdx.x = static_cast<unsigned>(t);
        resume(*fibers_[t]);
        moved = true;
      }
      if (!moved) die("a barrier that not all threads reach");
    }
  }

  void block_barrier() {
    if (++at_block_ < threads_) return wait();
    at_block_ = 0;
    result_ = vote_;
    vote_ = false;
    release(0, threads_);
  }
  bool block_any(bool vote) {
    vote_ = vote_ || vote;
    block_barrier();
    return result_;  // no other vote can end before this thread has come to it
  }
  void warp_barrier() {
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    if (++at_warp_[warp] < kWarpSize) return wait();
    at_warp_[warp] = 0;
    release(warp * kWarpSize, (warp + 1) * kWarpSize);
  }

 private:
  enum class State { kReady, kWaiting, kDone };

  struct Fiber {
    static constexpr size_t kStackBytes = 256 * 1024;

    explicit Fiber(Fibers& owner) {
      stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (stack == MAP_FAILED) die("no stack");
      getcontext(&context);
      context.uc_stack.ss_sp = stack;
      context.uc_stack.ss_size = kStackBytes;
      context.uc_link = nullptr;
      const uint64_t address = reinterpret_cast<uint64_t>(&owner);
      makecontext(&context, reinterpret_cast<void (*)()>(&Fibers::enter), 2, static_cast<unsigned>(address >> 32),
                  static_cast<unsigned>(address));
    }

    ucontext_t context;
    void* stack;
    void* shadow = nullptr;  // AddressSanitizer's view of a stack that is not running
    State state = State::kDone;
  };

  // A fiber plays one thread after another and never ends.
  static void enter(unsigned high, unsigned low) {
    Fibers& self = *reinterpret_cast<Fibers*>(static_cast<uint64_t>(high) << 32 | low);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &self.main_stack_, &self.main_size_);
#endif
    for (;;) {
      (*self.body_)();
      self.fibers_[threadIdx.x]->state = State::kDone;
      ++self.done_;
      self.pause();
    }
  }

  void wait() {
    fibers_[threadIdx.x]->state = State::kWaiting;
    pause();
  }
  void release(int first, int last) {
    for (int t = first; t < last; ++t) {
      if (fibers_[t]->state == State::kDone) die("a barrier that not all threads reach");
      fibers_[t]->state = State::kReady;
    }
  }

  void resume(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&main_shadow_, fiber.stack, Fiber::kStackBytes);
#endif
    swapcontext(&main_, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(main_shadow_, nullptr, nullptr);
#endif
  }
  void pause() {
    Fiber& fiber = *fibers_[threadIdx.x];
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fiber.shadow, main_stack_, main_size_);
#endif
    swapcontext(&fiber.context, &main_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber.shadow, &main_stack_, &main_size_);
#endif
  }

  std::vector<Fiber*> fibers_;
  const std::function<void()>* body_ = nullptr;
  ucontext_t main_;
  void* main_shadow_ = nullptr;
  const void* main_stack_ = nullptr;
  size_t main_size_ = 0;
  int threads_ = 0;
  int done_ = 0;
  int at_block_ = 0;
  std::vector<int> at_warp_;
  bool vote_ = false;
  bool result_ = false;
};
inline Fibers fibers;

inline void block_barrier() { fibers.block_barrier(); }
inline void warp_barrier() { fibers.warp_barrier(); }
inline bool block_any(bool vote) { return fibers.block_any(vote); }

inline int run_grid(int blocks, int threads, int shared_bytes, const std::function<void()>& body) {
  const std::lock_guard<std::mutex> lock(one_grid_at_a_time);
  slots.assign(static_cast<size_t>(threads), Slot());
  blockDim.x = static_cast<unsigned>(threads);
  gridDim.x = static_cast<unsigned>(blocks);
  for (int b = 0; b < blocks; ++b) {
    blockIdx.x = static_cast<unsigned>(b);
    renew_shared_memory(shared_bytes);
    fibers.run_block(threads, body);
  }
  return take_static_bytes();
}

#endif

// The value that `lane` of this thread's warp shows. All lanes must come.
template <class T>
T exchange(const T& value, int lane) {
  static_assert(sizeof(T) <= sizeof(Slot), "values of at most 8 bytes");
  const unsigned warp = threadIdx.x / kWarpSize * kWarpSize;
  std::memcpy(slots[threadIdx.x].bytes, &value, sizeof value);
  warp_barrier();
  T got;
  std::memcpy(&got, slots[warp + static_cast<unsigned>(lane)].bytes, sizeof got);
  warp_barrier();  // before anyone shows the next value
  return got;
}

// What the numbers of this thread's warp come to.
template <class Combine>
uint32_t reduce_warp(uint32_t number, const Combine& combine) {
  const unsigned warp = threadIdx.x / kWarpSize * kWarpSize;
  std::memcpy(slots[threadIdx.x].bytes, &number, sizeof number);
  warp_barrier();
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    uint32_t of_lane;
    std::memcpy(&of_lane, slots[warp + lane].bytes, sizeof of_lane);
    number = combine(number, of_lane);
  }
  warp_barrier();
  return number;
}
inline uint32_t united(uint32_t bits) {
  return reduce_warp(bits, [](uint32_t a, uint32_t b) { return a | b; });
}
inline uint32_t least(uint32_t number) {
  return reduce_warp(number, [](uint32_t a, uint32_t b) { return a < b ? a : b; });
}

}  // namespace shim
