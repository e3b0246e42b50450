#include "daemon/doctor.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "base/json.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "base/users.h"

namespace airllm::daemon {
namespace {

namespace fs = std::filesystem;

// A store with less room than this takes no model.
constexpr uint64_t kLittleRoomBytes = kGiB;

Json check(const char* name, const char* status, std::string message, std::string remedy = {}) {
  return Json{{"name", name},
              {"status", status},
              {"message", std::move(message)},
              {"remedy", std::move(remedy)}};
}
Json ok(const char* name, std::string message) { return check(name, "ok", std::move(message)); }
Json warning(const char* name, std::string message, std::string remedy) {
  return check(name, "warning", std::move(message), std::move(remedy));
}

std::string reason(int error) { return std::generic_category().message(error); }

// A small file of /proc or /sys, without the newline at its end; "" when it cannot be read.
std::string small_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  std::string content = text.str().substr(0, 4096);
  content.resize(content.find_last_not_of(" \n") + 1);
  return content;
}

// What follows "KEY:" on its line, without blanks around it.
std::string field(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(key + ":")) continue;
    const size_t begin = line.find_first_not_of(" \t", key.size() + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// ---- the store ---------------------------------------------------------------------------------

// The folder of the store (engine.h) that the daemon may not write, and why; "" when it may all.
std::string unwritable(const std::string& store, int& error) {
  for (const char* part : {"", "/models", "/incoming"}) {
    const std::string folder = store + part;
    if (::faccessat(AT_FDCWD, folder.c_str(), R_OK | W_OK | X_OK, AT_EACCESS) != 0) {
      error = errno;
      return folder;
    }
  }
  return "";
}

Json store_check(const std::string& store) {
  const std::string user = user_name(::geteuid());
  int error = 0;
  const std::string folder = unwritable(store, error);
  if (folder.empty()) return ok("store", store + " can be written by user " + user);
  const std::string message = "user " + user + ", who the daemon runs as, may not write " + folder +
                              ": " + reason(error) + "; no model can be made or removed";
  if (error == EROFS) {
    return warning("store", message, "make its file system writable, or choose another --store");
  }
  if (error == ENOENT) {
    return warning("store", message, "restart the daemon, which makes the store's folders");
  }
  return warning("store", message,
                 "sudo chown -R " + user + " " + store + " && sudo chmod -R u+rwX " + store);
}

Json room_check(const std::string& store) {
  struct statvfs room {};
  if (::statvfs(store.c_str(), &room) != 0) {
    return warning("room", "the room in " + store + " is unknown: " + reason(errno),
                   "look at the disk: df " + store);
  }
  const uint64_t free = uint64_t{room.f_bavail} * room.f_frsize;
  const std::string message = format_size(free) + " of " +
                              format_size(uint64_t{room.f_blocks} * room.f_frsize) +
                              " are free for the store";
  if (free >= kLittleRoomBytes) return ok("room", message);
  return warning("room", message,
                 "remove models (airllm rm MODEL), or use a store on another disk (--store)");
}

// How many models are whole, and what is wrong with the others.
Json models_check(Context& context, const engine::Viewer& viewer) {
  const Result<Json> list = with_remedy(context.engine.list(viewer), "look at the store's folder");
  if (!list) return warning("models", list.error().message, list.error().remedy);
  const std::string& wanted = context.default_model.get();
  size_t whole = 0;
  bool has_default = wanted.empty();
  std::string broken;
  for (const Json& model : *list) {
    const std::string name = text_of(model, "name");
    has_default = has_default || name == wanted;
    if (model.contains("problem")) broken = name + " (" + text_of(model, "problem") + ")";
    if (!model.contains("problem") && model.value("complete", Json(true)) == Json(true)) ++whole;
  }
  const std::string count = std::to_string(whole) + (whole == 1 ? " model" : " models");
  if (!broken.empty()) {
    return warning("models", count + "; one cannot be used: " + broken,
                   "remove it with 'airllm rm' and make it again with 'airllm split'");
  }
  if (!has_default) {
    return warning("models", count + "; the default model '" + wanted + "' is not among them",
                   "airllm default --daemon MODEL");
  }
  if (whole == 0)
    return warning("models", "the store has no model", "airllm split DIR --name NAME");
  return ok("models", count + (wanted.empty() ? ", no default model" : ", default " + wanted));
}

// ---- limits ------------------------------------------------------------------------------------

Json memlock_check() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
    return warning("memlock", "the limit on locked memory is unknown: " + reason(errno), "");
  }
  const std::string locked = field(small_file("/proc/self/status"), "VmLck");
  const bool unlimited = limit.rlim_cur == RLIM_INFINITY;
  return ok("memlock", (unlimited ? std::string("any amount") : format_size(limit.rlim_cur)) +
                           " may be locked in memory, " + (locked.empty() ? "0 kB" : locked) +
                           " are");
}

// "madvise" of "always [madvise] never".
std::string chosen(const std::string& choices) {
  const size_t begin = choices.find('[');
  const size_t end = choices.find(']');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return "unknown";
  return choices.substr(begin + 1, end - begin - 1);
}

Json huge_pages_check() {
  const std::string folder = "/sys/kernel/mm/transparent_hugepage/";
  const std::string mode = chosen(small_file(folder + "enabled"));
  const std::string message = "transparent huge pages: " + mode +
                              ", in shared memory: " + chosen(small_file(folder + "shmem_enabled"));
  if (mode != "never") return ok("huge_pages", message);
  return warning("huge_pages", message, "echo madvise | sudo tee " + folder + "enabled");
}

Json io_uring_check(const std::string& reader) {
  io_uring_params params{};
  const UniqueFd ring(static_cast<int>(::syscall(SYS_io_uring_setup, 1, &params)));
  const int error = errno;
  const std::string used = "; weights are read with " + (reader.empty() ? "?" : reader);
  if (ring.valid()) return ok("io_uring", "can be used" + used);
  const std::string disabled = small_file("/proc/sys/kernel/io_uring_disabled");
  if (error == EPERM && !disabled.empty() && disabled != "0") {
    return warning("io_uring", "is off: kernel.io_uring_disabled is " + disabled + used,
                   "sudo sysctl kernel.io_uring_disabled=0");
  }
  if (error == ENOSYS) {
    return warning("io_uring", "this kernel has none" + used, "use Linux 5.6 or newer");
  }
  return warning("io_uring", "is refused: " + reason(error) + used,
                 "let the unit's or the container's system call filter allow io_uring_setup");
}

// ---- devices -----------------------------------------------------------------------------------

Json cpu_check(const Json& engine) {
  const std::string cpu = text_of(engine, "cpu");
  const std::string why = text_of(engine, "cpu_reason");
  const std::string message = cpu + " kernels" + (why.empty() ? "" : ": " + why);
  if (cpu != "scalar") return ok("cpu", message);
  return warning("cpu", message + "; they are slow",
                 "unset AIRLLM_CPU, or use a machine with AVX2");
}

// The CUDA module beside this program or below its prefix; "" when it is not installed.
std::string find_cuda_module() {
  std::error_code ignored;
  const fs::path prefix = fs::read_symlink("/proc/self/exe", ignored).parent_path().parent_path();
  for (const char* libraries : {AIRLLM_LIBDIR, "lib"}) {
    const fs::path path = prefix / libraries / "airllm/libairllm_cuda.so";
    if (fs::exists(path, ignored)) return path.string();
  }
  return "";
}

// "NVIDIA H200, NVIDIA H200": what the driver lists.
std::string nvidia_devices() {
  std::string names;
  std::error_code failure;
  for (fs::directory_iterator entry("/proc/driver/nvidia/gpus", failure), end;
       !failure && entry != end; entry.increment(failure)) {
    const std::string name = field(small_file(entry->path() / "information"), "Model");
    names += (names.empty() ? "" : ", ") + (name.empty() ? "unnamed" : name);
  }
  return names;
}

Json gpu_check(const std::string& device) {
  const std::string used = "; models run on the " + (device.empty() ? "?" : device);
  const std::string driver = small_file("/sys/module/nvidia/version");
  if (driver.empty()) return ok("gpu", "no NVIDIA driver is loaded" + used);
  const std::string devices = nvidia_devices();
  std::string message = (devices.empty() ? "no NVIDIA device" : devices) + ", driver " + driver;
  if (::access("/dev/nvidiactl", R_OK | W_OK) != 0) {
    return warning("gpu", message + "; the daemon may not open /dev/nvidiactl" + used,
                   "let the unit use it: PrivateDevices=no and DeviceAllow=char-nvidia* rw in a "
                   "drop-in (systemctl edit airllmd)");
  }
  const std::string module = find_cuda_module();
  if (module.empty()) {
    message += "; the CUDA module is not installed";
  } else {
    void* const loaded = ::dlopen(module.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    message += "; " + module + (loaded != nullptr ? " is loaded" : " is there, not loaded");
    if (loaded != nullptr) ::dlclose(loaded);
  }
  return ok("gpu", message + used);
}

Json state_check(bool stopping) {
  if (!stopping) return ok("state", "the daemon takes jobs");
  const Error error = engine::stopping_error();
  return check("state", "problem", error.message, error.remedy);
}

}  // namespace

Json doctor_checks(Context& context, const engine::Viewer& viewer) {
  const Json engine = context.engine.status(viewer);
  const std::string& store = context.options.store_dir;
  return Json::array({state_check(context.stopping), store_check(store), room_check(store),
                      models_check(context, viewer), memlock_check(), huge_pages_check(),
                      io_uring_check(text_of(engine, "reader")), cpu_check(engine),
                      gpu_check(text_of(engine, "device"))});
}

}  // namespace airllm::daemon
