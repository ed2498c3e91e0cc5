// json_fields [--some] DOCUMENT HEADING FILE…: holds JSON files against the table of fields under a
// heading of docs/command.md.
//
// A row is | `field`, … | type | meaning |. A field is a path from the root, `devices[].name`; `[]`
// is each element, a last `*` any name. A type is string, integer, number, boolean, object, array
// or "array of strings" (and so on); with a `?` behind it the field need not be there, with "or
// null" it may be null, and "as this one" is an object with the fields of the same table.
//
// Each FILE must have every field that is not optional, of its type, and no other; and each field
// of the table must be in one of them, unless --some is given. What is not so is said on stderr, a
// line each, and the exit code is 1.

#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using nlohmann::json;

struct Field {
  std::string type;
  bool optional = false;
  bool or_null = false;
  bool as_root = false;
  bool seen = false;
};
using Fields = std::map<std::string, Field>;  // by path

std::string Trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

Field ParseType(const std::string& cell) {
  Field field;
  field.or_null = cell.find("or null") != std::string::npos;
  field.as_root = cell.find("as this one") != std::string::npos;
  field.type = Trimmed(cell.substr(0, cell.find(',')));
  field.optional = !field.type.empty() && field.type.back() == '?';
  if (field.optional) field.type.pop_back();
  return field;
}

Fields ReadTable(const std::string& document, const std::string& heading) {
  std::ifstream page(document);
  Fields fields;
  bool in_section = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("#")) in_section = line == heading;
    if (!in_section || !line.starts_with("| `")) continue;
    const size_t type_at = line.find('|', 1) + 1;
    const Field field = ParseType(line.substr(type_at, line.find('|', type_at) - type_at));
    std::istringstream names(line.substr(0, type_at));
    for (std::string name; std::getline(names, name, '`');) {
      if (!std::getline(names, name, '`')) break;
      if (!fields.emplace(name, field).second)
        throw std::runtime_error(name + " stands there twice");
    }
  }
  if (fields.empty()) throw std::runtime_error(document + " has no table under '" + heading + "'");
  return fields;
}

std::string TypeOf(const json& value) {
  if (value.is_array()) {
    return value.empty() || value[0].is_structured() ? "array"
                                                     : "array of " + TypeOf(value[0]) + "s";
  }
  if (value.is_number_integer()) return "integer";
  return value.type_name();
}

class Comparison {
 public:
  Comparison(Fields& fields, std::string file) : fields_(fields), file_(std::move(file)) {}

  // `prefix` is the object's path with what stands before a name in it: "", "arena.", "devices[].".
  void Look(const json& object, const std::string& prefix) {
    for (const auto& [name, value] : object.items()) LookAtField(prefix, name, value);
    for (const auto& [path, field] : fields_) {
      if (field.optional || !path.starts_with(prefix)) continue;
      std::string name = path.substr(prefix.size());
      if (name.ends_with("[]")) name.resize(name.size() - 2);
      const bool deeper = name.find_first_of(".[*") != std::string::npos;
      if (!deeper && !object.contains(name)) Say(path, "is documented and missing");
    }
  }
  bool fits() const { return fits_; }

 private:
  void LookAtField(const std::string& prefix, const std::string& name, const json& value) {
    const std::string path = prefix + name + (value.is_array() ? "[]" : "");
    auto found = fields_.find(path);
    if (found == fields_.end()) found = fields_.find(prefix + "*");
    if (found == fields_.end()) return Say(path, "is not documented");
    Field& field = found->second;
    field.seen = true;
    if (value.is_null() && field.or_null) return;
    const std::string type = TypeOf(value);
    const bool fits = type == field.type || (value.is_array() && value.empty());
    if (!fits) return Say(path, "is documented as " + field.type + " and is " + type);
    if (value.is_object()) Look(value, field.as_root ? "" : path + ".");
    if (!value.is_array()) return;
    for (const json& element : value) {
      if (element.is_object()) Look(element, path + ".");
    }
  }

  void Say(const std::string& path, const std::string& what) {
    fits_ = false;
    std::cerr << file_ << ": " << path << " " << what << "\n";
  }

  Fields& fields_;
  const std::string file_;
  bool fits_ = true;
};

bool Compare(const std::vector<std::string>& words, bool some) {
  Fields fields = ReadTable(words[0], words[1]);
  bool fits = true;
  for (size_t i = 2; i < words.size(); ++i) {
    std::ifstream file(words[i]);
    Comparison comparison(fields, words[i]);
    comparison.Look(json::parse(file), "");
    fits = comparison.fits() && fits;
  }
  for (const auto& [path, field] : fields) {
    if (field.seen || some) continue;
    fits = false;
    std::cerr << words[1] << ": " << path << " is documented and in none of the files\n";
  }
  return fits;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::vector<std::string> words(argv + 1, argv + argc);
    const bool some = !words.empty() && words[0] == "--some";
    if (some) words.erase(words.begin());
    if (words.size() < 3) {
      std::fputs("usage: json_fields [--some] DOCUMENT HEADING FILE…\n", stderr);
      return 2;
    }
    return Compare(words, some) ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "json_fields: " << error.what() << "\n";
    return 1;
  }
}
