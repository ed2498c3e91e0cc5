// What the attack tests print at their end: each attack and what came of it.
#ifndef GODWIT_TESTS_TOOLS_ATTACK_TABLE_H_
#define GODWIT_TESTS_TOOLS_ATTACK_TABLE_H_

#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace godwit {

enum class Secured { kPlain, kTls };

class AttackTable {
 public:
  static AttackTable& Of() {
    static AttackTable table;
    return table;
  }
  // In the order of their first Add().
  void Add(std::string_view attack, Secured secured, std::string came_of_it) {
    const size_t column = secured == Secured::kPlain ? 0 : 1;
    for (Row& row : rows_) {
      if (row.attack == attack) {
        row.came_of_it[column] = std::move(came_of_it);
        return;
      }
    }
    rows_.push_back({std::string(attack), {}});
    rows_.back().came_of_it[column] = std::move(came_of_it);
  }
  void Print() const {
    if (rows_.empty()) return;
    std::printf("| attack | plain | inside TLS |\n|---|---|---|\n");
    for (const Row& row : rows_) {
      std::printf("| %s |", row.attack.c_str());
      for (const std::string& text : row.came_of_it) {
        std::printf(" %s |", text.empty() ? "-" : text.c_str());
      }
      std::printf("\n");
    }
  }

 private:
  struct Row {
    std::string attack;
    std::array<std::string, 2> came_of_it;
  };
  std::vector<Row> rows_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_TOOLS_ATTACK_TABLE_H_
