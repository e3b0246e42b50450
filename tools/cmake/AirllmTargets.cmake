# What every target of ours shares: packages, warnings, sanitizers, and two helpers that make one
# library or one program of a folder.

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # What one clone compiled serves every other: paths count from the clone's root.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE_PROGRAM})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

macro(airllm_find_packages)
  find_package(PkgConfig REQUIRED)
  find_package(Threads REQUIRED)
  find_package(fmt REQUIRED)
  find_package(spdlog REQUIRED)
  find_package(CLI11 REQUIRED)
  find_package(nlohmann_json REQUIRED)
  pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
  pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl>=7.85)
  pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)
  pkg_check_modules(LIBURING REQUIRED IMPORTED_TARGET liburing)
  pkg_check_modules(ONIG REQUIRED IMPORTED_TARGET oniguruma)
  pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
  pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
endmacro()

add_library(airllm_options INTERFACE)
target_include_directories(airllm_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
target_compile_options(airllm_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Wno-psabi>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${AIRLLM_WERROR}>>:-Werror>)
# Where every processor can fuse a * b + c, GCC does so where it likes; then what is split, or drawn from
# logits, would differ from one machine to another. x86-64 has nothing to fuse with unless asked.
string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" AIRLLM_PROCESSOR)
if(NOT AIRLLM_PROCESSOR MATCHES "^(x86_64|amd64)$")
  target_compile_options(airllm_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
endif()
# GCC 12 warns falsely of standard strings and variants when it inlines much (GCC bugs 105562, 105329):
# at -O3, and with sanitizers. The dev preset keeps both warnings.
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND (CMAKE_BUILD_TYPE STREQUAL Release OR AIRLLM_SANITIZE))
  target_compile_options(airllm_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict -Wno-maybe-uninitialized>)
endif()
target_compile_definitions(airllm_options INTERFACE MSGPACK_NO_BOOST ASIO_STANDALONE
  ASIO_NO_DEPRECATED JSON_USE_IMPLICIT_CONVERSIONS=0)
target_link_options(airllm_options INTERFACE -Wl,--as-needed)
# Debian's hardening (dpkg-buildflags, hardening=+all), whoever builds a release; packaging/check
# compares. Position independent programs are the compiler's default there.
if(CMAKE_BUILD_TYPE STREQUAL Release AND NOT AIRLLM_SANITIZE)
  target_compile_options(airllm_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fstack-protector-strong -Wformat -Werror=format-security -Wdate-time
    -D_FORTIFY_SOURCE=2>)
  if(NOT CCACHE_PROGRAM)  # which makes paths relative itself, and would take each clone's for new
    target_compile_options(airllm_options INTERFACE
      $<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${CMAKE_SOURCE_DIR}=.>)
  endif()
  target_link_options(airllm_options INTERFACE -Wl,-z,relro -Wl,-z,now)
endif()
if(AIRLLM_SANITIZE)
  # Checks for null double the time to compile, and a null access is caught by its signal anyway; those
  # of sizes and of pointers' arithmetic add a fifth, and what they are for the address sanitizer finds.
  target_compile_options(airllm_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${AIRLLM_SANITIZE}
    -fno-sanitize=null,object-size,pointer-overflow,vptr -fno-omit-frame-pointer
    -fno-sanitize-recover=all>
    # Tests themselves would take a third longer to compile; their results tell what they do.
    $<$<BOOL:$<TARGET_PROPERTY:AIRLLM_IS_TEST>>:-fno-sanitize=undefined>)
  target_link_options(airllm_options INTERFACE -fsanitize=${AIRLLM_SANITIZE})
endif()

configure_file(${CMAKE_SOURCE_DIR}/base/version.h.in ${CMAKE_BINARY_DIR}/generated/base/version.h)

# airllm_library(NAME SOURCES file... [ALONE file...] [DEPENDS target...]): the static library of one
# folder. ALONE are those sources whose own names others of the folder have, too: a unity build (see the
# preset aarch64) compiles them by themselves.
function(airllm_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ALONE;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  if(ARG_ALONE)
    set_source_files_properties(${ARG_ALONE} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
  target_link_libraries(${name} PUBLIC airllm_options ${ARG_DEPENDS})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

# airllm_program(NAME SOURCES file... [DEPENDS target...] [INSTALL_DIR dir COMPONENT name])
# The components are those of packaging/CMakeLists.txt.
function(airllm_program name)
  cmake_parse_arguments(ARG "" "INSTALL_DIR;COMPONENT" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE airllm_options ${ARG_DEPENDS})
  if(ARG_INSTALL_DIR)
    install(TARGETS ${name} RUNTIME DESTINATION ${ARG_INSTALL_DIR} COMPONENT ${ARG_COMPONENT})
  endif()
endfunction()

# Sources that touch much memory, start no thread and use nothing that threads share: under the thread
# sanitizer they would take most of the time.
function(airllm_leave_to_one_thread)
  if(AIRLLM_SANITIZE STREQUAL "thread")
    set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_OPTIONS -fno-sanitize=thread)
  endif()
endfunction()
