// json_query FILE POINTER: prints what stands at a JSON pointer of a file, for test scripts.
//
// A string is printed without quotes, an array or object as its number of elements. Exit code 1 and
// a line on stderr where the file is not JSON or has nothing there.

#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: json_query FILE POINTER\n", stderr);
    return 2;
  }
  try {
    std::ifstream file(argv[1]);
    const nlohmann::json document = nlohmann::json::parse(file);
    const nlohmann::json& value = document.at(nlohmann::json::json_pointer(argv[2]));
    if (value.is_structured()) {
      std::cout << value.size() << "\n";
    } else if (value.is_string()) {
      std::cout << value.get<std::string>() << "\n";
    } else {
      std::cout << value.dump() << "\n";
    }
  } catch (const std::exception& error) {
    std::cerr << argv[1] << ": " << error.what() << "\n";
    return 1;
  }
  return 0;
}
