// Keeps TensorFlow from printing while it is loaded. TF_CPP_MIN_LOG_LEVEL silences the rest, but in recent versions not what its
// initializers log, which run before that variable is read. A module of its own, because this must happen before TensorFlow,
// on which the binding depends, is loaded.
#include <node_api.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

namespace {

/** The process's error output, and the file that takes its place; -1 where nothing is kept back. */
int before = -1;
int kept = -1;

void restore() {
  dup2(before, STDERR_FILENO);
  close(before);
  close(kept);
  before = kept = -1;
}

/** TensorFlow ends the process on a processor that it was not built for: then what it has said is printed. */
void print_and_end(int signal_number) {
  char part[4096];
  lseek(kept, 0, SEEK_SET);
  for (ssize_t length; (length = read(kept, part, sizeof part)) > 0;)
    if (write(before, part, length) < 0) break;
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

/** quietly(callback): calls a function and returns its result; what is printed as an error meanwhile is dropped. */
napi_value quietly(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value callback, nothing, result = nullptr;
  napi_get_cb_info(env, info, &count, &callback, nullptr, nullptr);
  napi_get_undefined(env, &nothing);
  FILE *file = tmpfile();
  void (*aborted)(int) = SIG_DFL, (*illegal)(int) = SIG_DFL;
  if (file) {
    before = dup(STDERR_FILENO);
    kept = dup(fileno(file));
    fclose(file);
    dup2(kept, STDERR_FILENO);
    aborted = signal(SIGABRT, print_and_end);
    illegal = signal(SIGILL, print_and_end);
  }
  napi_call_function(env, nothing, callback, 0, nullptr, &result);  // an exception stays pending
  if (file) {
    signal(SIGABRT, aborted);
    signal(SIGILL, illegal);
    restore();
  }
  return result;
}

}  // namespace

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "quietly", NAPI_AUTO_LENGTH, quietly, nullptr, &function);
  napi_set_named_property(env, exports, "quietly", function);
  return exports;
}
