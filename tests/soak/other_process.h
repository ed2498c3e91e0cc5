// A process of this program, to be killed.
#ifndef GODWIT_TESTS_SOAK_OTHER_PROCESS_H_
#define GODWIT_TESTS_SOAK_OTHER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "godwit/unique_fd.h"

namespace godwit {

class OtherProcess {
 public:
  // Runs this program with these arguments. Ends this one where that fails.
  explicit OtherProcess(std::vector<std::string> arguments);
  // Kills it, if that has not been done, and waits for its end.
  ~OtherProcess() { (void)Kill(); }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;

  // What it writes to its standard output up to the end of a line, or to its end.
  std::string ReadLine();
  // Whether that ended it: false where it had ended by itself, or been killed before.
  bool Kill();

 private:
  UniqueFd output_;
  pid_t pid_ = 0;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_SOAK_OTHER_PROCESS_H_
