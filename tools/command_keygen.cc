// godwit keygen.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <vector>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "tools/commands.h"
#include "tools/key_maker.h"
#include "tools/report.h"
#include "tools/session_runner.h"

namespace godwit {
namespace {

constexpr int kDays = 365;

struct NewFile {
  std::string path;
  std::string text;
};

// A folder that only its owner can look into, or one that is there.
absl::Status MakeFolder(const std::string& path) {
  constexpr mode_t kOwnersAlone = 0700;
  if (::mkdir(path.c_str(), kOwnersAlone) == 0 || errno == EEXIST) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("--out ", path, ": it can't be made"));
}

// All of them or none: a set whose halves don't belong together would be found out much later.
absl::Status WriteAllNew(const std::vector<NewFile>& files) {
  for (size_t i = 0; i < files.size(); ++i) {
    const absl::Status written = WriteNewFile(files[i].path, files[i].text);
    if (written.ok()) continue;
    // Of the last one there is something only where its writing failed.
    const size_t ours = absl::IsAlreadyExists(written) ? i : i + 1;
    for (size_t k = 0; k < ours; ++k) ::unlink(files[k].path.c_str());
    return written;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<NewFile>> PskFiles(const std::string& out) {
  GODWIT_ASSIGN_OR_RETURN(std::string psk, MakePsk());
  return std::vector<NewFile>{{absl::StrCat(out, "/psk"), std::move(psk)}};
}

absl::StatusOr<std::vector<NewFile>> CertificateFiles(const std::string& out,
                                                      const std::vector<std::string>& names) {
  GODWIT_ASSIGN_OR_RETURN(const Identity authority, MakeAuthority(kDays));
  std::vector<NewFile> files;
  const auto add = [&](const std::string& name, const Identity& identity) -> absl::Status {
    GODWIT_ASSIGN_OR_RETURN(std::string certificate, CertificatePem(identity));
    GODWIT_ASSIGN_OR_RETURN(std::string key, KeyPem(identity));
    files.push_back({absl::StrCat(out, "/", name, ".pem"), std::move(certificate)});
    files.push_back({absl::StrCat(out, "/", name, ".key"), std::move(key)});
    return absl::OkStatus();
  };
  GODWIT_RETURN_IF_ERROR(add("ca", authority));
  for (const char* const side : {"source", "target"}) {
    GODWIT_ASSIGN_OR_RETURN(const Identity identity,
                            MakeIdentity(authority, absl::StrCat("Godwit ", side), names, kDays));
    GODWIT_RETURN_IF_ERROR(add(side, identity));
  }
  return files;
}

std::string PskUse(const std::string& out) {
  return absl::StrCat("made ", out,
                      "/psk: copy it to both hosts, where nobody else may read it, and give\n"
                      "  godwit receive … --psk-file psk\n"
                      "  godwit send … --psk-file psk\n");
}

std::string CertificateUse(const std::string& out, const std::vector<std::string>& names) {
  return absl::StrCat(
      "made ", out, "/ca.pem, source.pem, target.pem and their .key files, valid for ", kDays,
      " days\n"
      "  on the target  godwit receive … --tls-cert target.pem --tls-key target.key --tls-ca "
      "ca.pem\n"
      "  on the source  godwit send … --tls-cert source.pem --tls-key source.key --tls-ca ca.pem\n"
      "their names: ",
      absl::StrJoin(names, ", "), "; send --to has to use one of them\n",
      "ca.key belongs on neither host: whoever has it can be anybody here\n");
}

}  // namespace

ExitCode RunKeygen(const KeygenCommand& command) {
  const std::vector<std::string> names =
      command.names.empty() ? std::vector<std::string>{"localhost", "127.0.0.1", "::1"}
                            : command.names;
  auto files = command.psk ? PskFiles(command.out) : CertificateFiles(command.out, names);
  if (!files.ok()) return Refuse(files.status());
  absl::Status written = MakeFolder(command.out);
  if (written.ok()) written = WriteAllNew(*files);
  if (!written.ok()) {
    LogError(written);
    return kExitFailed;
  }
  std::fputs((command.psk ? PskUse(command.out) : CertificateUse(command.out, names)).c_str(),
             stdout);
  return kExitDone;
}

}  // namespace godwit
