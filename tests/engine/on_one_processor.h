// What sessions do differently where there are few processors.
#ifndef GODWIT_TESTS_ENGINE_ON_ONE_PROCESSOR_H_
#define GODWIT_TESTS_ENGINE_ON_ONE_PROCESSOR_H_

#include <gtest/gtest.h>
#include <sched.h>

#include <cstddef>

namespace godwit {

// As long as it lives this thread, and those that it makes, may run on one processor only.
class OnOneProcessor {
 public:
  OnOneProcessor() {
    EXPECT_EQ(::sched_getaffinity(0, sizeof(before_), &before_), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE; ++i) {
      if (!CPU_ISSET(i, &before_)) continue;
      CPU_SET(i, &one);
      break;
    }
    EXPECT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
  }
  OnOneProcessor(const OnOneProcessor&) = delete;
  OnOneProcessor& operator=(const OnOneProcessor&) = delete;
  ~OnOneProcessor() { ::sched_setaffinity(0, sizeof(before_), &before_); }

 private:
  cpu_set_t before_{};
};

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_ON_ONE_PROCESSOR_H_
