// A call of the C ABI from Python. A kernel is made once, of a function's name and the names of the fields of its struct
// that its arguments fill, in their order; a call then goes through a table, without a name or a tuple.
//
//   a pointer       a tensor, or None
//   a number        itself; for a field called dtype a tensor, whose dtype it is
//   gfl_matrix      a tensor of at most two dimensions, broadcast along those that it lacks, columns first; or None
//   gfl_flat        a vector, or a single value that every row shares; or None
//   gfl_bins        rows (N, channels), or maps (B, channels, H, W) whose positions are evenly spaced; or None
//   gfl_maps        a list of maps (B, channels, H, W), or (one flat tensor, the maps that its parts are laid out as)
//   gfl_levels      (maps, strides), or (heights, widths, strides)
//   gfl_ranges      (lows, highs)
//   head levels     (maps of scores, maps of edges, strides)
//
// Fields x_dtype and x_stride follow the tensor that fills x. What no argument fills is zero. A workspace is fetched
// from torch's allocator, where a few bytes of the stack do not do.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tensor_view.h"

namespace gfl {

enum FieldKind { kInt32, kInt64, kDouble, kPointer, kMatrix, kBins, kFlat, kMaps, kLevels, kRanges, kHeadLevels };

struct Field {
  const char* name;
  FieldKind kind;
  size_t offset;
};

struct Function {
  const char* name;
  size_t size;  // of its struct
  const Field* fields;
  int (*run)(const gfl_device*, const void*);
  int64_t (*workspace_bytes)(const gfl_device*, const void*);
};

inline std::invalid_argument bad_argument(const char* name, const char* expected) {
  return std::invalid_argument(std::string(name) + " must be " + expected);
}

inline double real_of(PyObject* value) {
  const double number = PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred()) throw PythonError();
  return number;
}

inline int64_t whole_of(PyObject* value) {
  const int64_t number = PyLong_AsLongLong(value);
  if (number == -1 && PyErr_Occurred()) throw PythonError();
  return number;
}

// A list or tuple; its items are borrowed.
class Items {
 public:
  Items(PyObject* object, const char* name) : object_(object) {
    if (!PyList_Check(object) && !PyTuple_Check(object)) throw bad_argument(name, "a list or a tuple");
  }
  Py_ssize_t size() const { return PySequence_Fast_GET_SIZE(object_); }
  PyObject* operator[](Py_ssize_t i) const { return PySequence_Fast_GET_ITEM(object_, i); }
  int levels(const char* name) const {
    if (size() > GFL_MAX_LEVELS) throw bad_argument(name, "of at most 8 levels");
    return static_cast<int>(size());
  }

 private:
  PyObject* object_;
};

// Between the positions of a (B, C, H, W) map. The stride of a dimension of size 1 means nothing.
inline int64_t position_stride(const TensorView& map) {
  return map.shape[3] > 1 ? map.stride[3] : map.shape[2] > 1 ? map.stride[2] : 1;
}

inline gfl_bins bins_of(const TensorView& x) {
  if (x.ndim == 2) return {x.data, x.dtype, 0, x.stride[1], x.stride[0]};
  return {x.data, x.dtype, x.stride[0], x.stride[1], position_stride(x)};
}

class KernelCall {
 public:
  KernelCall(const Function& function, int32_t device_type, std::vector<Field> fields)
      : function_(function), device_type_(device_type), fields_(std::move(fields)), follow_(fields_.size()) {
    for (size_t i = 0; i < fields_.size(); ++i) {
      for (const char* suffix : {"_dtype", "_stride"}) {
        const Field* field = find(function, (std::string(fields_[i].name) + suffix).c_str());
        if (field && !has(field->name)) follow_[i].push_back(*field);
      }
    }
    if (function.size > kMostBytes) throw std::invalid_argument("kMostBytes is less than this struct");
    const Field* workspace = find(function, "workspace");
    workspace_ = workspace && function.workspace_bytes ? static_cast<int64_t>(workspace->offset) : -1;
  }

  static const Field* find(const Function& function, const char* name) {
    for (const Field* field = function.fields; field->name; ++field) {
      if (std::strcmp(field->name, name) == 0) return field;
    }
    return nullptr;
  }

  void run(PyObject* const* arguments, Py_ssize_t count) const {
    if (count != static_cast<Py_ssize_t>(fields_.size())) throw std::invalid_argument("wrong number of arguments");
    alignas(16) char op[kMostBytes];
    std::memset(op, 0, function_.size);
    Fill fill{op};
    for (size_t i = 0; i < fields_.size(); ++i) fill.field(fields_[i], follow_[i], arguments[i]);

    gfl_device device = fill.device;
    if (device_type_ >= 0) {
      device.type = device_type_;
    } else {
      device.stream = torch().stream_of(device);
    }
    alignas(64) char scratch[kStackScratch];
    Reference workspace;
    if (workspace_ >= 0) {
      const int64_t bytes = function_.workspace_bytes(&device, op);
      void* memory = scratch;
      if (bytes > kStackScratch || device.type != GFL_CPU) {
        workspace.reset(
            checked(PyObject_CallFunction(torch().allocate, "LO", static_cast<long long>(bytes), fill.first_tensor)));
        memory = torch().read(workspace.get()).data;
      }
      std::memcpy(op + workspace_, &memory, sizeof memory);
    }
    int status;
    Py_BEGIN_ALLOW_THREADS;
    status = function_.run(&device, op);
    Py_END_ALLOW_THREADS;
    if (status == GFL_ERROR_ARGUMENT) throw std::invalid_argument(gfl_last_error());
    if (status != GFL_OK) throw std::runtime_error(gfl_last_error());
  }

 private:
  static constexpr size_t kMostBytes = 2048;
  static constexpr int64_t kStackScratch = 1024;

  struct Release {
    void operator()(PyObject* object) const { Py_DECREF(object); }
  };
  using Reference = std::unique_ptr<PyObject, Release>;

  bool has(const char* name) const {
    for (const Field& field : fields_) {
      if (std::strcmp(field.name, name) == 0) return true;
    }
    return false;
  }

  struct Fill {
    char* op;
    gfl_device device = {GFL_CPU, 0, nullptr};
    PyObject* first_tensor = nullptr;

    template <class T>
    void put(const Field& field, const T& value) {
      std::memcpy(op + field.offset, &value, sizeof value);
    }

    TensorView read(PyObject* object, const char* name) {
      if (!torch().is_tensor(object)) throw bad_argument(name, "a tensor");
      const TensorView view = torch().read(object);
      if (!first_tensor) {
        first_tensor = object;
        device = view.device;
      }
      return view;
    }

    void field(const Field& field, const std::vector<Field>& follow, PyObject* value) {
      if (field.kind == kDouble) return put(field, real_of(value));
      if (field.kind == kInt64) return put(field, whole_of(value));
      if (field.kind == kInt32) {
        const bool of_tensor = torch().is_tensor(value);
        return put(field, static_cast<int32_t>(of_tensor ? read(value, field.name).dtype : whole_of(value)));
      }
      if (field.kind == kLevels) return put(field, levels(field.name, value));
      if (field.kind == kRanges) return put(field, ranges(field.name, value));
      if (field.kind == kHeadLevels) return head_levels(field, value);
      if (value == Py_None) return;
      if (field.kind == kMaps) return put(field, maps(field.name, value));
      const TensorView x = read(value, field.name);
      if (field.kind == kPointer) put(field, x.data);
      if (field.kind == kBins) put(field, bins_of(x));
      if (field.kind == kFlat) put(field, gfl_flat{x.data, x.ndim > 0 ? x.stride[0] : 0});
      if (field.kind == kMatrix) {
        put(field, gfl_matrix{x.data, x.dtype, x.ndim > 0 ? x.stride[0] : 0, x.ndim > 1 ? x.stride[1] : 0});
      }
      for (const Field& other : follow) {
        if (other.kind == kInt32) put(other, x.dtype);
        if (other.kind == kInt64) put(other, int64_t{x.ndim > 0 ? x.stride[0] : 0});
      }
    }

    gfl_levels levels(const char* name, PyObject* value) {
      const Items parts(value, name);
      const Items strides(parts[parts.size() - 1], name);
      const Items first(parts[0], name);
      gfl_levels result{};
      result.count = strides.levels(name);
      for (int i = 0; i < result.count; ++i) {
        gfl_level& level = result.level[i];
        level.stride = real_of(strides[i]);
        if (parts.size() == 2) {
          const TensorView map = read(first[i], name);
          level.height = static_cast<int32_t>(map.shape[2]);
          level.width = static_cast<int32_t>(map.shape[3]);
        } else {
          level.height = static_cast<int32_t>(whole_of(first[i]));
          level.width = static_cast<int32_t>(whole_of(Items(parts[1], name)[i]));
        }
      }
      return result;
    }

    gfl_ranges ranges(const char* name, PyObject* value) {
      const Items parts(value, name);
      const Items lows(parts[0], name), highs(parts[1], name);
      gfl_ranges result{};
      for (int i = 0; i < lows.levels(name); ++i) {
        result.low[i] = real_of(lows[i]);
        result.high[i] = real_of(highs[i]);
      }
      return result;
    }

    gfl_maps maps(const char* name, PyObject* value) {
      if (PyTuple_Check(value) && PyTuple_GET_SIZE(value) == 2 && torch().is_tensor(PyTuple_GET_ITEM(value, 0))) {
        return parts_of(name, PyTuple_GET_ITEM(value, 0), PyTuple_GET_ITEM(value, 1));
      }
      const Items tensors(value, name);
      gfl_maps result{};
      result.count = tensors.levels(name);
      for (int i = 0; i < result.count; ++i) {
        const TensorView map = read(tensors[i], name);
        result.dtype = map.dtype;
        result.level[i] = {map.data, map.stride[0], map.stride[1], position_stride(map)};
      }
      return result;
    }

    // One tensor, in which maps laid out as `like` lie one behind the other.
    gfl_maps parts_of(const char* name, PyObject* whole, PyObject* like) {
      const TensorView all = read(whole, name);
      gfl_maps result = maps(name, like);
      const int64_t size = all.dtype == GFL_FLOAT64 ? 8 : all.dtype == GFL_FLOAT32 ? 4 : 2;
      char* part = static_cast<char*>(all.data);
      const Items tensors(like, name);
      for (int i = 0; i < result.count; ++i) {
        const TensorView map = read(tensors[i], name);
        result.level[i].data = part;
        part += map.shape[0] * map.shape[1] * map.shape[2] * map.shape[3] * size;
      }
      result.dtype = all.dtype;
      return result;
    }

    void head_levels(const Field& field, PyObject* value) {
      const Items parts(value, field.name);
      if (parts.size() != 3) throw bad_argument(field.name, "scores, edges and strides");
      const Items scores(parts[0], field.name), edges(parts[1], field.name), strides(parts[2], field.name);
      const int count = scores.levels(field.name);
      for (int i = 0; i < count; ++i) {
        const TensorView score = read(scores[i], field.name), edge = read(edges[i], field.name);
        const gfl_head_level level{bins_of(score), bins_of(edge), static_cast<int32_t>(score.shape[2]),
                                   static_cast<int32_t>(score.shape[3]), real_of(strides[i])};
        std::memcpy(op + field.offset + static_cast<size_t>(i) * sizeof level, &level, sizeof level);
      }
    }
  };

  Function function_;
  int32_t device_type_;  // -1: that of the tensors
  std::vector<Field> fields_;
  std::vector<std::vector<Field>> follow_;
  int64_t workspace_;
};

}  // namespace gfl
