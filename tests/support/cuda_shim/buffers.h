// Test only: random inputs for the driver. Each buffer is its own allocation of the exact size, so that AddressSanitizer
// sees one element too many; outputs start as NaN, so that one that was not written shows.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gfl.h"
#include "math/half.h"

namespace {

const gfl_device kDevice{GFL_CUDA, 0, nullptr};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "driver: %s\n", what.c_str());
  std::exit(1);
}

void check(int status) {
  if (status != GFL_OK) die(gfl_last_error());
}

// A fixed sequence, the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 12345u) {}
  int below(int n) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int>((state_ >> 33) % static_cast<uint64_t>(n));
  }
  double between(double low, double high) { return low + (high - low) * below(1 << 20) / (1 << 20); }
  bool coin() { return below(2) == 1; }
  template <class T>
  T of(std::initializer_list<T> choices) {
    return choices.begin()[below(static_cast<int>(choices.size()))];
  }

 private:
  uint64_t state_;
};

int value_bytes(int32_t dtype) {
  return dtype == GFL_FLOAT64 || dtype == GFL_INT64 ? 8 : dtype == GFL_FLOAT32 || dtype == GFL_INT32 ? 4 : 2;
}
int32_t compute_dtype(int32_t dtype) { return dtype == GFL_FLOAT64 ? GFL_FLOAT64 : GFL_FLOAT32; }

void put(void* data, int32_t dtype, int64_t i, double value) {
  switch (dtype) {
    case GFL_FLOAT64:
      static_cast<double*>(data)[i] = value;
      return;
    case GFL_FLOAT32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case GFL_BFLOAT16:
      static_cast<gfl::bfloat16*>(data)[i] = gfl::narrow<gfl::bfloat16>(static_cast<float>(value));
      return;
    case GFL_FLOAT16:
      static_cast<gfl::float16*>(data)[i] = gfl::narrow<gfl::float16>(static_cast<float>(value));
      return;
    case GFL_INT64:
      static_cast<int64_t*>(data)[i] = static_cast<int64_t>(value);
      return;
    default:
      static_cast<int32_t*>(data)[i] = static_cast<int32_t>(value);
  }
}

double get(const void* data, int32_t dtype, int64_t i) {
  switch (dtype) {
    case GFL_FLOAT64:
      return static_cast<const double*>(data)[i];
    case GFL_FLOAT32:
      return static_cast<double>(static_cast<const float*>(data)[i]);
    case GFL_BFLOAT16:
      return static_cast<double>(gfl::widen(static_cast<const gfl::bfloat16*>(data)[i]));
    case GFL_INT64:
      return static_cast<double>(static_cast<const int64_t*>(data)[i]);
    case GFL_INT32:
      return static_cast<const int32_t*>(data)[i];
    default:
      return static_cast<double>(gfl::widen(static_cast<const gfl::float16*>(data)[i]));
  }
}

// `size` values from element `offset` of an allocation that ends right behind them; NaN until filled. An offset of 1
// makes the address one that cannot be loaded 16 bytes at a time.
class Buffer {
 public:
  Buffer(int32_t dtype, int64_t size, int64_t offset = 0) : dtype_(dtype), size_(size), offset_(offset) {
    const size_t bytes = static_cast<size_t>((size + offset) * value_bytes(dtype));
    memory_.reset(std::malloc(bytes ? bytes : 1));
    std::memset(memory_.get(), 0xff, bytes);
  }
  Buffer& fill(Random& random, double low, double high) {
    for (int64_t i = 0; i < size_; ++i) put(data(), dtype_, i, random.between(low, high));
    return *this;
  }
  Buffer& poison() {
    std::memset(data(), 0xff, static_cast<size_t>(size_ * value_bytes(dtype_)));
    return *this;
  }
  void* data() const { return static_cast<char*>(memory_.get()) + offset_ * value_bytes(dtype_); }
  int32_t dtype() const { return dtype_; }
  int64_t size() const { return size_; }
  double operator[](int64_t i) const { return get(data(), dtype_, i); }

  void written(const char* name) const {
    for (int64_t i = 0; i < size_; ++i) {
      if (std::isnan((*this)[i])) die(std::string(name) + "[" + std::to_string(i) + "] was not written");
    }
  }
  void same(const Buffer& other, const char* name) const {
    for (int64_t i = 0; i < size_; ++i) {
      const double a = (*this)[i];
      const double b = other[i];
      if (a != b && !(std::isnan(a) && std::isnan(b))) {
        die(std::string(name) + "[" + std::to_string(i) + "]: " + std::to_string(a) + " and " + std::to_string(b));
      }
    }
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  int32_t dtype_;
  int64_t size_;
  int64_t offset_;
};

using MaybeBuffer = std::unique_ptr<Buffer>;
void* data_of(const MaybeBuffer& buffer) { return buffer ? buffer->data() : nullptr; }

int32_t any_dtype(Random& random) { return random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32, GFL_BFLOAT16, GFL_FLOAT16}); }

MaybeBuffer maybe_vector(Random& random, int32_t dtype, int64_t size, double low, double high) {
  if (random.coin()) return nullptr;
  MaybeBuffer buffer(new Buffer(dtype, size));
  buffer->fill(random, low, high);
  return buffer;
}

enum class Layout { kRows, kPadded, kColumns };

// A (rows, cols) matrix in one of the layouts, its allocation ending with its last element.
struct Matrix {
  Matrix(int32_t dtype, int64_t rows, int64_t cols, Layout layout, int64_t offset)
      : row_stride(layout == Layout::kColumns  ? 1
                   : layout == Layout::kPadded ? cols + 3
                                               : cols),
        col_stride(layout == Layout::kColumns ? (rows > 0 ? rows : 1) : 1),
        buffer(dtype, rows * cols == 0 ? 0 : (rows - 1) * row_stride + (cols - 1) * col_stride + 1, offset) {}

  gfl_matrix view() const { return {buffer.data(), buffer.dtype(), row_stride, col_stride}; }

  int64_t row_stride;
  int64_t col_stride;
  Buffer buffer;
};

gfl_reduction any_reduction(Random& random, bool elements, const MaybeBuffer& avg_factor) {
  const int mode = random.below(elements ? 3 : 2);
  return {mode, random.between(0.1, 2.0), random.below(3), data_of(avg_factor)};
}
int64_t loss_size(const gfl_reduction& reduction, int64_t rows, int64_t cols) {
  return reduction.mode == GFL_REDUCE_SUM ? 1 : reduction.mode == GFL_REDUCE_ROWS ? rows : rows * cols;
}

Buffer workspace(int64_t bytes) { return Buffer(GFL_FLOAT64, (bytes + 7) / 8); }

void fill_boxes(Matrix& boxes, Random& random) {
  const gfl_matrix view = boxes.view();
  for (int64_t row = 0; boxes.buffer.size() > 0 && row * view.row_stride < boxes.buffer.size(); ++row) {
    if (row * view.row_stride + 3 * view.col_stride >= boxes.buffer.size()) break;
    for (int64_t i = 0; i < 4; ++i) {
      put(view.data, view.dtype, row * view.row_stride + i * view.col_stride,
          i < 2 ? random.between(0.0, 30.0) : random.between(31.0, 60.0));
    }
  }
}

gfl_iou_options any_options(Random& random) {
  return {random.below(4), random.below(3), random.below(2), random.below(2), 1e-6};
}

}  // namespace
