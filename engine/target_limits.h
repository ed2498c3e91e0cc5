// What a target lets a source ask for.
#ifndef GODWIT_ENGINE_TARGET_LIMITS_H_
#define GODWIT_ENGINE_TARGET_LIMITS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "godwit/session.h"
#include "transport/control.pb.h"

namespace godwit {

// InvalidArgument where a limit of `options` is outside of the format's.
absl::Status CheckTargetLimits(const TargetOptions& options);

// Whether the source's frames are ours, and it asks for no more than the format and `options`
// allow. The error is for both sides to read: what was asked for, what is allowed, which option
// changes that.
absl::Status CheckAskedFor(const control::Hello& hello, const TargetOptions& options);

// What both can use: the source's first choice of them.
absl::StatusOr<TransportKind> ChooseTransport(const control::Hello& hello,
                                              const TargetOptions& options);

// Why nothing that the source offers is taken by a target that was told `accepted`.
absl::Status NoCommonTransport(const control::Hello& hello, TransportKind accepted);

}  // namespace godwit

#endif  // GODWIT_ENGINE_TARGET_LIMITS_H_
