// Whether arguments are like those that passed an op's checks last time: as to tensors their dtypes, shapes, devices and
// whether they require grad, as to everything else its value; a number that comes last, an avg_factor that changes from
// step to step, is like any other. What is not a plain tensor, a number, a short string or a
// list of these has no signature, and is checked every time.
#pragma once

#include <cstring>
#include <vector>

#include "tensor_view.h"

namespace gfl {

class Signature {
 public:
  bool is_last(PyObject* const* arguments, Py_ssize_t count) {
    return describe(arguments, count) && !last_.empty() && now_ == last_;
  }

  void remember(PyObject* const* arguments, Py_ssize_t count) {
    if (describe(arguments, count)) {
      last_ = now_;
    } else {
      last_.clear();
    }
  }

 private:
  enum Mark : int64_t { kNone, kTrue, kFalse, kNumber, kFloat, kInt, kString, kItems, kTensor };

  bool describe(PyObject* const* arguments, Py_ssize_t count) {
    now_.clear();
    for (Py_ssize_t i = 0; i < count; ++i) {
      const bool any_number = i == count - 1 && is_number(arguments[i]);
      if (any_number) {
        add(kNumber);
      } else if (!describe(arguments[i])) {
        return false;
      }
    }
    return true;
  }

  static bool is_number(PyObject* value) {
    if (PyFloat_CheckExact(value)) return true;
    int overflow = 0;
    if (PyLong_CheckExact(value)) PyLong_AsLongLongAndOverflow(value, &overflow);
    return PyLong_CheckExact(value) && overflow == 0;
  }

  void add(int64_t a) { now_.push_back(a); }

  bool describe(PyObject* value) {
    if (value == Py_None) return add(kNone), true;
    if (value == Py_True) return add(kTrue), true;
    if (value == Py_False) return add(kFalse), true;
    if (torch().is_plain_type(value)) return describe_tensor(value);
    if (PyFloat_CheckExact(value)) {
      const double number = PyFloat_AS_DOUBLE(value);
      int64_t bits;
      std::memcpy(&bits, &number, sizeof bits);
      return add(kFloat), add(bits), true;
    }
    if (PyLong_CheckExact(value)) {
      int overflow = 0;
      const int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow);
      return add(kInt), add(number), overflow == 0;
    }
    if (PyUnicode_CheckExact(value)) return describe_string(value);
    if (PyTuple_CheckExact(value) || PyList_CheckExact(value)) {
      const Py_ssize_t size = PySequence_Fast_GET_SIZE(value);
      add(kItems), add(size);
      for (Py_ssize_t i = 0; i < size; ++i) {
        if (!describe(PySequence_Fast_GET_ITEM(value, i))) return false;
      }
      return true;
    }
    return false;
  }

  bool describe_string(PyObject* value) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(value, &size);
    if (!text) return PyErr_Clear(), false;
    char start[16] = {};
    if (size > static_cast<Py_ssize_t>(sizeof start)) return false;
    std::memcpy(start, text, static_cast<size_t>(size));
    int64_t halves[2];
    std::memcpy(halves, start, sizeof halves);
    return add(kString), add(halves[0]), add(halves[1]), true;
  }

  // What cannot be read (a sparse or a meta tensor, one inside a transform) has no signature.
  bool describe_tensor(PyObject* value) {
    TensorView view;
    try {
      view = torch().read(value);
    } catch (const std::exception&) {
      return PyErr_Clear(), false;
    }
    PyObject* requires_grad = PyObject_GetAttrString(value, "requires_grad");
    if (!requires_grad) return PyErr_Clear(), false;
    add(kTensor), add(view.dtype_identity), add(view.device.type), add(view.device.index);
    add(requires_grad == Py_True), add(view.ndim);
    Py_DECREF(requires_grad);
    for (int i = 0; i < view.ndim; ++i) add(view.shape[i]);
    return true;
  }

  std::vector<int64_t> now_, last_;
};

}  // namespace gfl
