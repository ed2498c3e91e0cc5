// listener hold|close TEXT: what a source may meet in place of a receiver.
//
// Listens on a free port of 127.0.0.1, prints it, accepts one connection, sends TEXT (\NNN in octal
// is a byte), and closes it or holds it open until it is killed.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

namespace {

std::string Bytes(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    if (text[0] == '\\' && text.size() >= 4) {
      bytes += static_cast<char>(std::stoi(std::string(text.substr(1, 3)), nullptr, 8));
      text.remove_prefix(4);
    } else {
      bytes += text[0];
      text.remove_prefix(1);
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: listener hold|close TEXT\n", stderr);
    return 2;
  }
  const std::string bytes = Bytes(argv[2]);
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener, any, length) != 0 || ::listen(listener, 8) != 0 ||
      ::getsockname(listener, any, &length) != 0) {
    std::perror("listener");
    return 1;
  }
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  const int connection = ::accept(listener, nullptr, nullptr);
  if (connection < 0 || ::send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
                            static_cast<ssize_t>(bytes.size())) {
    std::perror("listener");
    return 1;
  }
  if (std::string_view(argv[1]) == "close") {
    // What the source sent is read first, or closing would reset the connection.
    char ignored[4096];
    ::shutdown(connection, SHUT_WR);
    while (::read(connection, ignored, sizeof(ignored)) > 0) {
    }
    return 0;
  }
  while (true) ::pause();
}
