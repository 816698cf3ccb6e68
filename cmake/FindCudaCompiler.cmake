# gfl_find_cuda_compiler(result): enables CUDA where GFL_CUDA allows it and nvcc works, and says in one line what
# was decided. It looks for a compiler, never for a GPU: a machine without one builds the kernels for others.

include(CheckLanguage)

macro(gfl_find_cuda_compiler result)
  set(${result} OFF)
  string(TOLOWER "${GFL_CUDA}" gfl_cuda_wish)
  if(gfl_cuda_wish MATCHES "^(off|0|no|false)$")
    message(STATUS "gfl_ops: CPU-only core (GFL_CUDA=${GFL_CUDA})")
  elseif(NOT gfl_cuda_wish MATCHES "^(auto|on|1|yes|true)$")
    message(FATAL_ERROR "gfl_ops: GFL_CUDA must be auto, on or off, got '${GFL_CUDA}'")
  else()
    if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
      find_program(GFL_NVCC nvcc
        HINTS ENV CUDA_HOME ENV CUDA_PATH
        PATHS /usr/local/cuda
        PATH_SUFFIXES bin)
      if(GFL_NVCC)
        set(CMAKE_CUDA_COMPILER "${GFL_NVCC}")
      endif()
    endif()
    if(DEFINED ENV{CUDACXX} OR CMAKE_CUDA_COMPILER)
      gfl_try_nvcc(gfl_cuda_problem)
    else()
      set(gfl_cuda_problem "no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda")
    endif()

    if(NOT gfl_cuda_problem)
      set(${result} ON)
      message(STATUS "gfl_ops: core with CUDA kernels for ${GFL_CUDA_ARCHS} (nvcc ${CMAKE_CUDA_COMPILER_VERSION})")
    elseif(gfl_cuda_wish STREQUAL "auto")
      message(STATUS "gfl_ops: CPU-only core (${gfl_cuda_problem})")
    else()
      message(FATAL_ERROR "gfl_ops: GFL_CUDA=${GFL_CUDA}, but ${gfl_cuda_problem}")
    endif()
  endif()
endmacro()

# Leaves in `problem` why nvcc cannot be used, or nothing.
macro(gfl_try_nvcc problem)
  set(${problem} "")
  # check_language wants to find the compiler itself: hand it over in the environment.
  if(CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    set(ENV{CUDACXX} "${CMAKE_CUDA_COMPILER}")
  endif()
  unset(CMAKE_CUDA_COMPILER)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(${problem} "$ENV{CUDACXX} does not work with this C++ compiler")
  else()
    # The kernels name their architectures on their own target; this one only serves the compiler check.
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES OFF)
    endif()
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 11.8)
      set(${problem} "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 11.8")
    endif()
  endif()
endmacro()
