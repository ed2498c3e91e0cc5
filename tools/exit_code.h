// The exit codes of the godwit command, as --help states them.
#ifndef GODWIT_TOOLS_EXIT_CODE_H_
#define GODWIT_TOOLS_EXIT_CODE_H_

#include "godwit/session.h"

namespace godwit {

enum ExitCode : int {
  kExitDone = 0,
  kExitFailed = 1,   // and rolled back
  kExitUsage = 2,    // nothing was touched
  kExitInDoubt = 3,  // contact was lost in the handover
};

inline ExitCode ExitCodeOf(SessionOutcome outcome) {
  switch (outcome) {
    case SessionOutcome::kDone:
      return kExitDone;
    case SessionOutcome::kRolledBack:
      return kExitFailed;
    case SessionOutcome::kInDoubt:
      return kExitInDoubt;
  }
  return kExitFailed;
}

}  // namespace godwit

#endif  // GODWIT_TOOLS_EXIT_CODE_H_
