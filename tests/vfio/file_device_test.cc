// Goal: a file crosses byte for byte whatever was at the target before, and what can't work is
// refused when the device is opened.
#include "vfio/file_device.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include <functional>
#include <thread>

#include "base/units.h"
#include "tests/vfio/stream_io.h"

namespace godwit {
namespace {

using testing::HasSubstr;

std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  return bytes;
}

class FileDeviceTest : public testing::Test {
 protected:
  std::unique_ptr<FileDevice> Open(const std::string& path, DeviceRole role) {
    auto device = FileDevice::Open(path, role);
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  }
  absl::Status Refusal(const std::string& path, DeviceRole role) {
    return FileDevice::Open(path, role).status();
  }
  // Opens the target and writes `bytes` to it; leaves it RESUMING.
  std::unique_ptr<FileDevice> Loading(absl::string_view bytes) {
    auto device = Open(target_, DeviceRole::kTarget);
    const UniqueFd loading = device->SetState(DeviceState::kResuming).value();
    WriteAll(loading.get(), bytes);
    return device;
  }

  TempDirectory directory_;
  const std::string source_ = directory_.Path("source");
  const std::string target_ = directory_.Path("target");
};

TEST_F(FileDeviceTest, EverySizeCrossesOntoNothingAShorterAndALongerFile) {
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{4095}, size_t{4096}, size_t{kMiB}, size_t{kMiB} + 1}) {
    for (const int before : {-1, 0, 100, 3 << 20}) {
      SCOPED_TRACE(absl::StrCat(size, " bytes onto ", before));
      WriteFile(source_, Pattern(size));
      std::filesystem::remove(target_);
      if (before >= 0) WriteFile(target_, std::string(static_cast<size_t>(before), '#'));

      const auto source = Open(source_, DeviceRole::kSource);
      const UniqueFd saving = source->SetState(DeviceState::kStopCopy).value();
      EXPECT_EQ(source->StopCopyBytes().value(), size);
      const auto target = Loading(ReadToEnd(saving.get()));
      EXPECT_TRUE(target->SetState(DeviceState::kRunning).ok());
      EXPECT_EQ(ReadFile(target_), Pattern(size));
    }
  }
}

TEST_F(FileDeviceTest, AnExistingTargetIsWrittenInPlace) {
  WriteFile(target_, "old content");
  struct stat before = {};
  ASSERT_EQ(::stat(target_.c_str(), &before), 0);
  const auto target = Loading("new");
  EXPECT_EQ(ReadFile(target_), "new content");  // cut only at the end
  ASSERT_TRUE(target->SetState(DeviceState::kStop).ok());
  EXPECT_EQ(ReadFile(target_), "new");
  struct stat after = {};
  ASSERT_EQ(::stat(target_.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
}

TEST_F(FileDeviceTest, ACreatedTargetIsItsOwnersOnly) {
  const auto target = Loading("secret");
  struct stat file = {};
  ASSERT_EQ(::stat(target_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600u);
}

TEST_F(FileDeviceTest, ResetRemovesWhatThisSessionCreated) {
  const auto target = Loading("half");
  ASSERT_TRUE(target->Reset().ok());
  EXPECT_FALSE(std::filesystem::exists(target_));

  const auto stopped = Loading("whole, but never run");
  ASSERT_TRUE(stopped->SetState(DeviceState::kStop).ok());
  ASSERT_TRUE(stopped->Reset().ok());
  EXPECT_FALSE(std::filesystem::exists(target_));
}

TEST_F(FileDeviceTest, ResetLeavesAFileThatWasThereBefore) {
  WriteFile(target_, "old content");
  const auto target = Loading("new");
  ASSERT_TRUE(target->Reset().ok());
  EXPECT_EQ(ReadFile(target_), "new content");
}

TEST_F(FileDeviceTest, ResetLeavesAFileThatHasRun) {
  const auto target = Loading("done");
  ASSERT_TRUE(target->SetState(DeviceState::kRunning).ok());
  ASSERT_TRUE(target->Reset().ok());
  EXPECT_EQ(ReadFile(target_), "done");
}

TEST_F(FileDeviceTest, OpeningATargetCreatesNothing) {
  { const auto target = Open(target_, DeviceRole::kTarget); }
  EXPECT_FALSE(std::filesystem::exists(target_));
}

TEST_F(FileDeviceTest, ASourceIsNeverWrittenTo) {
  WriteFile(source_, "precious");
  const auto source = Open(source_, DeviceRole::kSource);
  EXPECT_EQ(source->SetState(DeviceState::kResuming).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(source->State().value(), DeviceState::kStop);
  EXPECT_EQ(ReadFile(source_), "precious");
}

TEST_F(FileDeviceTest, AFileThatIsGoneBySavingTimeIsAnError) {
  WriteFile(source_, "x");
  const auto source = Open(source_, DeviceRole::kSource);
  std::filesystem::remove(source_);
  const absl::Status gone = source->SetState(DeviceState::kStopCopy).status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(gone.message()), HasSubstr(source_));
  EXPECT_EQ(source->State().value(), DeviceState::kStop);
  EXPECT_TRUE(source->SetState(DeviceState::kRunning).ok());
}

TEST_F(FileDeviceTest, WhatCantWorkIsRefusedAtOpen) {
  const std::string fifo = directory_.Path("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  WriteFile(directory_.Path("plain"), "");
  constexpr DeviceRole kSource = DeviceRole::kSource;
  constexpr DeviceRole kTarget = DeviceRole::kTarget;
  const struct {
    std::string path;
    DeviceRole role;
    const char* complaint;
  } cases[] = {{directory_.Path("absent"), kSource, "can't find the file"},
               {directory_.Path("absent/x"), kTarget, "does not exist: make it first"},
               {directory_.Path("plain/x"), kTarget, "can't find the file"},
               {directory_.path(), kSource, "is a directory"},
               {directory_.path(), kTarget, "is a directory"},
               {directory_.Path("new/"), kTarget, "names no file"},
               {"", kTarget, "names no file"},
               {fifo, kSource, "is not a regular file"},
               {fifo, kTarget, "is not a regular file"}};
  for (const auto& bad : cases) {
    const absl::Status refusal = Refusal(bad.path, bad.role);
    EXPECT_FALSE(refusal.ok()) << bad.path;
    EXPECT_THAT(std::string(refusal.message()), HasSubstr(bad.complaint));
    EXPECT_THAT(std::string(refusal.message()), HasSubstr("file:" + bad.path));
  }
}

// Runs `body` in a thread that has no more rights than anybody. Root is above file modes, so
// there the thread gives its rights up: the raw system call changes the one thread only.
void AsAnybody(const std::function<void()>& body) {
  std::thread thread([&] {
    constexpr uid_t kKeep = static_cast<uid_t>(-1);
    constexpr uid_t kNobody = 65534;
    if (::geteuid() == 0) {
      ASSERT_EQ(::syscall(SYS_setresuid, kKeep, kNobody, kKeep), 0);
    }
    body();
  });
  thread.join();
}

TEST_F(FileDeviceTest, MissingRightsAreRefusedAtOpen) {
  WriteFile(source_, "x");
  ASSERT_EQ(::chmod(source_.c_str(), 0), 0);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0555), 0);
  AsAnybody([&] {
    EXPECT_EQ(Refusal(source_, DeviceRole::kSource).code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(Refusal(source_, DeviceRole::kTarget).code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(Refusal(target_, DeviceRole::kTarget).code(), absl::StatusCode::kPermissionDenied);
  });
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0700), 0);
}

}  // namespace
}  // namespace godwit
