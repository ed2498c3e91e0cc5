// Every wrong number that a control message can carry, made from a right one.
#ifndef GODWIT_TESTS_TOOLS_LIES_H_
#define GODWIT_TESTS_TOOLS_LIES_H_

#include <set>
#include <string>
#include <vector>

#include "transport/control.pb.h"

namespace godwit {

struct Lie {
  std::string what;   // "hello.lanes = 65"
  std::string bytes;  // the message
};

// All of them: each field of each message in it, set or not, by the schema itself, so that a field
// that is added is lied about as well. Numbers become 0, 1, the largest of 31, 32, 63 and 64 bits,
// and one more and one less than they are; strings lose a byte, all of them, or grow; lists lose an
// element, all of them, or grow by one and by a thousand. Adds the names of numeric fields to
// `fields`.
std::vector<Lie> LiesAbout(const control::ControlMessage& right, std::set<std::string>& fields);

}  // namespace godwit

#endif  // GODWIT_TESTS_TOOLS_LIES_H_
