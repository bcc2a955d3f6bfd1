// The native module of the tensorflow engine: tfjs-node's binding, unchanged, for any TensorFlow, with a choice of what it
// computes on. The package's binding starts TensorFlow when it is loaded, with all devices, all their memory and all
// processors; here `start` does, with a configuration.
#include <dlfcn.h>
#include <node_api.h>
#include <pthread.h>
#include <signal.h>

#include <string>
#include <utility>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/eager/c_api.h"

namespace alitok {
TFE_Context *take_context(const TFE_ContextOptions *options, TF_Status *status);
void execute(TFE_Op *op, TFE_TensorHandle **results, int *count, TF_Status *status);
}  // namespace alitok

// The package's sources call our functions instead of these two, and do not register a module of their own.
#define TFE_NewContext alitok::take_context
#define TFE_Execute alitok::execute
#undef NAPI_MODULE
#define NAPI_MODULE(name, init)
#include "tfjs_backend.cc"
#include "tfjs_binding.cc"
#undef TFE_NewContext
#undef TFE_Execute

namespace alitok {
namespace {

const char *const CPU = "/job:localhost/replica:0/task:0/device:CPU:0";

/** A context that `start` has made and the package's backend has not yet taken. */
TFE_Context *made = nullptr;
/**
 * Blocks signals on this thread while it exists, and on threads that are started meanwhile. Code that oneDNN generates for
 * AVX-512 products (in TensorFlow 2.21) keeps data below the stack pointer, where a signal's handler overwrites them: Ctrl-C or a
 * profiler would end the process with a damaged heap. Node.js receives signals once the operation has ended.
 */
class WithoutSignals {
 public:
  WithoutSignals() {
    sigset_t all;
    sigfillset(&all);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, fault);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~WithoutSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

/** Whether operations run on the CPU although there is another device. */
bool on_cpu = false;

napi_value fail(napi_env env, const std::string &message) {
  napi_throw_error(env, nullptr, message.c_str());
  return nullptr;
}

napi_value string_of(napi_env env, const char *text) {
  napi_value value;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
  return value;
}

/** The number of CUDA devices that the driver reports; 0 without a driver. TensorFlow may use fewer. */
napi_value cuda_devices(napi_env env, napi_callback_info) {
  int count = 0;
  if (void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
    auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
    auto get_count = reinterpret_cast<int (*)(int *)>(dlsym(driver, "cuDeviceGetCount"));
    if (!init || !get_count || init(0) != 0 || get_count(&count) != 0) count = 0;
  }
  napi_value value;
  napi_create_int32(env, count, &value);
  return value;
}

/** Makes all operations run on the CPU, or where TensorFlow puts them: on a GPU, if there is one. */
napi_value compute_on_cpu(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  if (count < 1 || napi_get_value_bool(env, argument, &on_cpu) != napi_ok)
    return fail(env, "computeOnCpu takes a boolean");
  return nullptr;
}

/** The names of a context's devices, as an array of strings. */
napi_value devices_of(napi_env env, TFE_Context *context, TF_Status *status) {
  TF_DeviceList *list = TFE_ContextListDevices(context, status);
  if (TF_GetCode(status) != TF_OK) return nullptr;
  napi_value names;
  napi_create_array(env, &names);
  for (int i = 0; i < TF_DeviceListCount(list); i++)
    napi_set_element(env, names, i, string_of(env, TF_DeviceListName(list, i, status)));
  TF_DeleteDeviceList(list);
  return names;
}

/**
 * start(config): starts TensorFlow with a serialized ConfigProto, and returns tfjs-node's binding with the names of the
 * devices. An error has TensorFlow's message. tfjs-node would go on after one, without a context.
 */
napi_value start(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_typedarray_type type;
  size_t length;
  void *config;
  if (count < 1 ||
      napi_get_typedarray_info(env, argument, &type, &length, &config, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array)
    return fail(env, "start takes a Uint8Array");
  const WithoutSignals blocked;  // for TensorFlow's threads
  tfnodejs::TF_AutoStatus status;
  TFE_ContextOptions *options = TFE_NewContextOptions();
  TFE_ContextOptionsSetConfig(options, config, length, status.status);
  if (TF_GetCode(status.status) == TF_OK) made = TFE_NewContext(options, status.status);
  TFE_DeleteContextOptions(options);
  napi_value names = nullptr;
  if (TF_GetCode(status.status) == TF_OK) names = devices_of(env, made, status.status);
  if (names == nullptr) {
    if (made != nullptr) TFE_DeleteContext(std::exchange(made, nullptr));
    return fail(env, TF_Message(status.status));
  }
  napi_value binding;
  napi_create_object(env, &binding);
  if (tfnodejs::InitTFNodeJSBinding(env, binding) == nullptr) return nullptr;
  napi_set_named_property(env, binding, "devices", names);
  return binding;
}

napi_value initialize(napi_env env, napi_value exports) {
  napi_set_named_property(env, exports, "version", string_of(env, TF_Version()));
  napi_set_named_property(env, exports, "cuda", string_of(env, ALITOK_CUDA));
  const std::pair<const char *, napi_callback> functions[] = {
      {"start", start}, {"cudaDevices", cuda_devices}, {"computeOnCpu", compute_on_cpu}};
  for (const auto &[name, call] : functions) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, call, nullptr, &function);
    napi_set_named_property(env, exports, name, function);
  }
  return exports;
}

}  // namespace

TFE_Context *take_context(const TFE_ContextOptions *, TF_Status *) { return std::exchange(made, nullptr); }

void execute(TFE_Op *op, TFE_TensorHandle **results, int *count, TF_Status *status) {
  const WithoutSignals blocked;
  if (on_cpu) TFE_OpSetDevice(op, CPU, status);
  if (TF_GetCode(status) == TF_OK) TFE_Execute(op, results, count, status);
}

}  // namespace alitok

NAPI_MODULE_INIT() { return alitok::initialize(env, exports); }
