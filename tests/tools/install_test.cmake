# cmake -DBUILD=build/dev -P tests/tools/install_test.cmake: units installed under a prefix start the
# program that is installed under it.
set(prefix "${BUILD}/install_test/prefix/opt")
file(REMOVE_RECURSE "${BUILD}/install_test")
execute_process(COMMAND ${CMAKE_COMMAND} "-DCMAKE_INSTALL_PREFIX=${prefix}"
                        -P ${BUILD}/systemd/cmake_install.cmake
                COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
foreach(kind system user)
  set(unit "${prefix}/lib/systemd/${kind}/airllmd.service")
  file(STRINGS "${unit}" starts REGEX "^ExecStart=")
  string(FIND "${starts}" "${prefix}/bin/airllmd" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "${unit} does not start ${prefix}/bin/airllmd: ${starts}")
  endif()
endforeach()
file(REMOVE_RECURSE "${BUILD}/install_test")
