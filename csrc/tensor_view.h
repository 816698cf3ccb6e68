// Tensors as the bindings read them, without a header of torch: by DLPack's C exchange API where torch has it (2.10), by
// the tensor's own attributes where not. Whoever reads one holds the GIL and the tensor.
#pragma once

#include <Python.h>

#include <cstdint>
#include <stdexcept>

#include "gfl.h"

namespace gfl {

struct PythonError : std::exception {};  // Python's own error is set

inline PyObject* checked(PyObject* object) {
  if (!object) throw PythonError();
  return object;
}

constexpr int kMostDims = 8;
constexpr int32_t kOtherDtype = -1;

struct TensorView {
  void* data = nullptr;
  int32_t dtype = kOtherDtype;
  int64_t dtype_identity = 0;                 // different for every dtype, also those that the core does not know
  gfl_device device = {GFL_CPU, 0, nullptr};  // without its stream
  int ndim = 0;
  int64_t shape[kMostDims];
  int64_t stride[kMostDims];
};

// What the bindings know of torch; gfl_ops/_native.py hands it over once.
class Torch {
 public:
  PyObject* tensor = nullptr;     // torch.Tensor
  PyObject* parameter = nullptr;  // torch.nn.Parameter
  PyObject* dtypes = nullptr;     // in the order of gfl_dtype
  PyObject* watchers = nullptr;   // functions; one that returns something true wants to see every op in the registry
  PyObject* stream = nullptr;     // the current stream of a GPU, by its index
  PyObject* allocate = nullptr;   // bytes on the device of a tensor
  bool exchange_api = true;       // tests take it away

  void find_exchange_api();
  bool has_exchange_api() const { return exchange_api && api_; }

  bool is_tensor(PyObject* object) const {
    return is_plain_type(object) || PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(tensor));
  }
  bool is_plain_type(PyObject* object) const {
    PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
    return type == tensor || type == parameter;
  }

  TensorView read(PyObject* object) const;
  void* stream_of(const gfl_device& device) const;

 private:
  TensorView read_attributes(PyObject* object) const;

  const struct ExchangeApi* api_ = nullptr;
};

inline Torch& torch() {
  static Torch known;
  return known;
}

// ---- DLPack, as far as it is read here (dlpack.h, version 1) -------------------------------------

struct DlTensor {
  void* data;
  int32_t device_type;
  int32_t device_index;
  int32_t ndim;
  uint8_t type_code;
  uint8_t type_bits;
  uint16_t type_lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

struct ExchangeApi {
  uint32_t major;
  uint32_t minor;
  void* previous;
  void* allocate;
  void* from_python;
  void* to_python;
  int (*view)(void* object, DlTensor* tensor);
  int (*current_stream)(int32_t device_type, int32_t device_index, void** stream);
};

enum DlDevice { kDlCpu = 1, kDlCuda = 2 };

inline void Torch::find_exchange_api() {
  PyObject* capsule = PyObject_GetAttrString(tensor, "__dlpack_c_exchange_api__");
  if (!capsule) return PyErr_Clear();
  auto* found = static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  Py_DECREF(capsule);
  if (!found) return PyErr_Clear();
  if (found->major == 1 && found->view && found->current_stream) api_ = found;
}

inline int32_t dtype_of(const DlTensor& tensor) {
  enum { kInt = 0, kFloat = 2, kBfloat = 4 };
  switch (tensor.type_code * 256 + tensor.type_bits) {
    case kFloat * 256 + 64:
      return GFL_FLOAT64;
    case kFloat * 256 + 32:
      return GFL_FLOAT32;
    case kFloat * 256 + 16:
      return GFL_FLOAT16;
    case kBfloat * 256 + 16:
      return GFL_BFLOAT16;
    case kInt * 256 + 64:
      return GFL_INT64;
    case kInt * 256 + 32:
      return GFL_INT32;
    default:
      return kOtherDtype;
  }
}

inline TensorView Torch::read(PyObject* object) const {
  if (!has_exchange_api()) return read_attributes(object);
  DlTensor tensor;
  if (api_->view(object, &tensor) != 0) throw PythonError();
  TensorView view;
  if (tensor.ndim > kMostDims) throw std::invalid_argument("a tensor has more dimensions than the core reads");
  view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  view.dtype = dtype_of(tensor);
  view.dtype_identity = tensor.type_code * 256 + tensor.type_bits;
  view.device.type = tensor.device_type == kDlCuda ? GFL_CUDA : tensor.device_type == kDlCpu ? GFL_CPU : -1;
  view.device.index = tensor.device_index;
  view.ndim = tensor.ndim;
  for (int i = 0; i < tensor.ndim; ++i) {
    view.shape[i] = tensor.shape[i];
    view.stride[i] = tensor.strides[i];
  }
  return view;
}

// ---- a torch before 2.10 ------------------------------------------------------------------------

// Of what a getter returned: taken over and let go.
inline int64_t integer_of(PyObject* object) {
  const int64_t value = PyLong_AsLongLong(checked(object));
  Py_DECREF(object);
  if (value == -1 && PyErr_Occurred()) throw PythonError();
  return value;
}

inline int read_sizes(PyObject* sizes, int64_t (&out)[kMostDims]) {
  checked(sizes);
  const Py_ssize_t ndim = PyTuple_GET_SIZE(sizes);
  for (Py_ssize_t i = 0; i < ndim && i < kMostDims; ++i) out[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(sizes, i));
  Py_DECREF(sizes);
  if (ndim > kMostDims) throw std::invalid_argument("a tensor has more dimensions than the core reads");
  return static_cast<int>(ndim);
}

inline TensorView Torch::read_attributes(PyObject* object) const {
  TensorView view;
  view.data = reinterpret_cast<void*>(integer_of(PyObject_CallMethod(object, "data_ptr", nullptr)));
  view.ndim = read_sizes(PyObject_GetAttrString(object, "shape"), view.shape);
  read_sizes(PyObject_CallMethod(object, "stride", nullptr), view.stride);
  PyObject* dtype = checked(PyObject_GetAttrString(object, "dtype"));
  view.dtype_identity = reinterpret_cast<int64_t>(dtype);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(dtypes); ++i) {
    if (PyTuple_GET_ITEM(dtypes, i) == dtype) view.dtype = static_cast<int32_t>(i);
  }
  Py_DECREF(dtype);
  const int64_t index = integer_of(PyObject_CallMethod(object, "get_device", nullptr));  // -1 on a CPU
  if (index >= 0) view.device = {GFL_CUDA, static_cast<int32_t>(index), nullptr};
  return view;
}

inline void* Torch::stream_of(const gfl_device& device) const {
  if (device.type != GFL_CUDA) return nullptr;
  if (!has_exchange_api()) {
    return reinterpret_cast<void*>(integer_of(PyObject_CallFunction(stream, "i", static_cast<int>(device.index))));
  }
  void* current = nullptr;
  if (api_->current_stream(kDlCuda, device.index, &current) != 0) throw PythonError();
  return current;
}

}  // namespace gfl
