# gfl_cuda_architectures(target archs names): compiles the target for architectures named as CMake names them, and
# leaves in `names` what the module reports of them: "sm_80 sm_90 compute_80", the last being PTX.
#
# The machine code of all comes from the PTX of one, so that nvcc's front end, which is half of its time, runs once: of
# the lowest from 80 on, which has all that our kernels use. What is older has its own.

function(gfl_cuda_architectures target archs names)
  if(archs STREQUAL "native" AND CMAKE_CUDA_ARCHITECTURES_NATIVE)  # CMake 3.24 looks what is in the machine
    set(archs "${CMAKE_CUDA_ARCHITECTURES_NATIVE}")
  endif()
  set(lowest "")
  foreach(arch IN LISTS archs)
    if(NOT arch MATCHES "^([0-9]+)([af]?)(-real|-virtual)?$")
      message(FATAL_ERROR "gfl_ops: GFL_CUDA_ARCHS has '${arch}', and not something like 90, 90-real or 90-virtual")
    endif()
    if(CMAKE_MATCH_1 GREATER_EQUAL 80 AND (lowest STREQUAL "" OR CMAKE_MATCH_1 LESS lowest))
      set(lowest ${CMAKE_MATCH_1})
    endif()
  endforeach()

  set(found "")
  foreach(arch IN LISTS archs)
    string(REGEX MATCH "^([0-9]+)([af]?)(-real|-virtual)?$" arch "${arch}")
    set(number ${CMAKE_MATCH_1}${CMAKE_MATCH_2})
    set(kind "${CMAKE_MATCH_3}")
    set(ptx ${number})
    if(CMAKE_MATCH_1 GREATER_EQUAL 80)
      set(ptx ${lowest})
    endif()
    if(NOT kind STREQUAL "-virtual")
      target_compile_options(${target} PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:--generate-code=arch=compute_${ptx},code=sm_${number}>)
      list(APPEND found sm_${number})
    endif()
    if(NOT kind STREQUAL "-real")
      target_compile_options(${target} PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:--generate-code=arch=compute_${number},code=compute_${number}>)
      list(APPEND found compute_${number})
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES OFF)
  string(REPLACE ";" " " found "${found}")
  set(${names} "${found}" PARENT_SCOPE)
endfunction()
