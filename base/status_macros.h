// Passing a Status up the stack.
#ifndef GODWIT_BASE_STATUS_MACROS_H_
#define GODWIT_BASE_STATUS_MACROS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <utility>

#define GODWIT_CONCAT_INNER(a, b) a##b
#define GODWIT_CONCAT(a, b) GODWIT_CONCAT_INNER(a, b)

#define GODWIT_RETURN_IF_ERROR(expression)         \
  do {                                             \
    absl::Status godwit_status = (expression);     \
    if (!godwit_status.ok()) return godwit_status; \
  } while (false)

#define GODWIT_ASSIGN_OR_RETURN(declaration, expression) \
  GODWIT_ASSIGN_OR_RETURN_IMPL(GODWIT_CONCAT(godwit_status_or_, __LINE__), declaration, expression)
// NOLINTBEGIN(bugprone-macro-parentheses): a name and a declaration can't stand in parentheses
#define GODWIT_ASSIGN_OR_RETURN_IMPL(temporary, declaration, expression) \
  auto temporary = (expression);                                         \
  if (!temporary.ok()) return std::move(temporary).status();             \
  declaration = *std::move(temporary)
// NOLINTEND(bugprone-macro-parentheses)

#endif  // GODWIT_BASE_STATUS_MACROS_H_
