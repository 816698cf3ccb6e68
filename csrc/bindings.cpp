// Python's door to the core. Arguments are trusted here; the package checks them where they enter.
#include <pybind11/pybind11.h>

#include <cstring>
#include <vector>

#include "gfl.h"
#include "kernel_call.h"
#include "struct_fields.h"

namespace py = pybind11;

namespace {

using gfl::torch;

// ---- signatures -----------------------------------------------------------------------------------

// Whether arguments are like those that passed an op's checks last time: as to tensors their dtypes, shapes, devices and
// whether they require grad, as to everything else its value; a number that comes last, an avg_factor that changes from
// step to step, is like any other. What is not a plain tensor, a number, a short string or a list of these has no
// signature, and is checked every time.
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
    gfl::TensorView view;
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

// ---- functions whose calls cost little: a C function with its state, past pybind11's own ---------

template <class State>
State& state_of(PyObject* capsule) {
  return *static_cast<State*>(PyCapsule_GetPointer(capsule, nullptr));
}

template <class State>
py::object bound(PyMethodDef* method, std::shared_ptr<State> state) {
  auto* owner = new std::shared_ptr<State>(std::move(state));
  py::capsule capsule(owner->get());
  PyCapsule_SetContext(capsule.ptr(), owner);
  PyCapsule_SetDestructor(
      capsule.ptr(), [](PyObject* self) { delete static_cast<std::shared_ptr<State>*>(PyCapsule_GetContext(self)); });
  return py::reinterpret_steal<py::object>(PyCFunction_New(method, capsule.ptr()));
}

template <class Function>
PyObject* guarded(Function function) noexcept {
  try {
    return function();
  } catch (const gfl::PythonError&) {
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyCFunction fast(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

PyObject* run_kernel(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&] {
    state_of<gfl::KernelCall>(self).run(arguments, count);
    Py_RETURN_NONE;
  });
}

PyObject* is_last(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&] { return PyBool_FromLong(state_of<Signature>(self).is_last(arguments, count)); });
}

PyObject* remember(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&] {
    state_of<Signature>(self).remember(arguments, count);
    Py_RETURN_NONE;
  });
}

PyMethodDef kRunKernel = {"kernel", fast(run_kernel), METH_FASTCALL, nullptr};
PyMethodDef kIsLast = {"is_last", fast(is_last), METH_FASTCALL, nullptr};
PyMethodDef kRemember = {"remember", fast(remember), METH_FASTCALL, nullptr};

py::object kernel(const std::string& name, const std::vector<std::string>& fields, int32_t device_type) {
  for (const gfl::Function& function : gfl::kFunctions) {
    if (name != function.name) continue;
    std::vector<gfl::Field> filled;
    for (const std::string& field : fields) {
      const gfl::Field* found = gfl::KernelCall::find(function, field.c_str());
      if (!found) throw py::value_error("gfl.h has no field " + field + " for " + name);
      filled.push_back(*found);
    }
    return bound(&kRunKernel, std::make_shared<gfl::KernelCall>(function, device_type, std::move(filled)));
  }
  throw py::value_error("gfl.h has no function " + name);
}

// (is_last, remember)
py::tuple signature() {
  const auto state = std::make_shared<Signature>();
  return py::make_tuple(bound(&kIsLast, state), bound(&kRemember, state));
}

// ---- whether a call may go past torch's registry -------------------------------------------------

// A tensor whose memory is there to be read, or no tensor at all. Subclasses and fake tensors are for the registry.
bool is_plain(PyObject* value) {
  if (PyList_Check(value) || PyTuple_Check(value)) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(value); ++i) {
      if (!is_plain(PySequence_Fast_GET_ITEM(value, i))) return false;
    }
    return true;
  }
  if (!torch().is_tensor(value)) return true;
  if (!torch().is_plain_type(value)) return false;
  for (const char* place : {"is_cpu", "is_cuda"}) {
    PyObject* there = gfl::checked(PyObject_GetAttrString(value, place));
    Py_DECREF(there);
    if (there == Py_True) return true;
  }
  return false;
}

bool somebody_watches() {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(torch().watchers); ++i) {
    PyObject* answer = gfl::checked(PyObject_CallNoArgs(PyTuple_GET_ITEM(torch().watchers, i)));
    const int watches = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    if (watches != 0) return true;
  }
  return false;
}

PyObject* are_plain(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&] {
    bool plain = !somebody_watches();
    for (Py_ssize_t i = 0; plain && i < count; ++i) plain = is_plain(arguments[i]);
    return PyBool_FromLong(plain);
  });
}

PyMethodDef kArePlain = {"are_plain", fast(are_plain), METH_FASTCALL, nullptr};

void connect(py::object tensor, py::object parameter, py::tuple dtypes, py::tuple watchers, py::object stream,
             py::object allocate) {
  torch().tensor = tensor.release().ptr();  // for good
  torch().parameter = parameter.release().ptr();
  torch().dtypes = dtypes.release().ptr();
  torch().watchers = watchers.release().ptr();
  torch().stream = stream.release().ptr();
  torch().allocate = allocate.release().ptr();
  torch().find_exchange_api();
}

void set_cpu_isa(const char* isa) {
  if (gfl_set_cpu_isa(isa) != GFL_OK) throw py::value_error(gfl_last_error());
}

}  // namespace

#ifndef GFL_MODULE
#define GFL_MODULE _core
#endif

PYBIND11_MODULE(GFL_MODULE, module) {
  module.doc() = "The native kernels of gfl_ops. Private: use the functions of the package.";
  module.def("connect", &connect);
  module.def("kernel", [](const std::string& name, const py::tuple& fields, int32_t device_type) {
    std::vector<std::string> names;
    for (const py::handle field : fields) names.push_back(py::cast<std::string>(field));
    return kernel(name, names, device_type);
  });
  module.def("signature", &signature);
  module.attr("are_plain") = py::reinterpret_steal<py::object>(PyCFunction_New(&kArePlain, nullptr));
  module.def("has_exchange_api", [] { return torch().has_exchange_api(); });
  module.def("use_exchange_api", [](bool use) { torch().exchange_api = use; });
  module.def("has_cuda", [] { return gfl_has_cuda() != 0; });
  module.def("cuda_architectures", &gfl_cuda_architectures);
  module.def("cuda_driver_version", &gfl_cuda_driver_version);
  module.def("cuda_runtime_version", &gfl_cuda_runtime_version);
  module.def("cpu_isa", &gfl_cpu_isa);
  module.def("set_cpu_isa", &set_cpu_isa);
  module.def("cpu_threads", &gfl_cpu_threads);
  module.def("use_huge_pages",
             [](uint64_t data, int64_t bytes) { gfl_use_huge_pages(reinterpret_cast<void*>(data), bytes); });
}
