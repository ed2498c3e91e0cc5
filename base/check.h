// Checks for our own bugs. Never for a peer's or a device's bytes: those get a Status.
#ifndef GODWIT_BASE_CHECK_H_
#define GODWIT_BASE_CHECK_H_

#include <absl/base/optimization.h>

namespace godwit {

// Prints "file:line: CHECK failed: condition" to stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace godwit

// Always on: for conditions whose violation would corrupt state.
#define GODWIT_CHECK(condition)                    \
  (ABSL_PREDICT_TRUE(static_cast<bool>(condition)) \
       ? static_cast<void>(0)                      \
       : ::godwit::CheckFailed(__FILE__, __LINE__, #condition))

// Off where NDEBUG is defined (Release): for conditions on the hot path. Still compiled, so that
// it can't rot.
#ifdef NDEBUG
#define GODWIT_DCHECK(condition) static_cast<void>(false && static_cast<bool>(condition))
#else
#define GODWIT_DCHECK(condition) GODWIT_CHECK(condition)
#endif

#endif  // GODWIT_BASE_CHECK_H_
