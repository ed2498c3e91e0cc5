// Writes a capture: docs/capture-format.md.
#ifndef GODWIT_ENGINE_CAPTURE_WRITER_H_
#define GODWIT_ENGINE_CAPTURE_WRITER_H_

#include <absl/status/statusor.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "base/arena.h"
#include "engine/capture_format.h"
#include "godwit/unique_fd.h"

namespace godwit {

// Writes PATH.partial and gives it its name once it is whole and durable. Destroyed before that, it
// removes it.
//
// Ownership: owns the file while it is partial.
// Threads:   single-threaded.
// Blocking:  as the file system does; Commit() until the disk has all of it.
// Errors:    name the path. After the first the file is only good for being removed.
class CaptureWriter {
 public:
  // As fsync(2), of a folder.
  using SyncFolder = int (*)(int fd);

  // AlreadyExists if there is a file at `path`, unless `replace`, and if another writer is at work
  // on it. InvalidArgument for what can't be a file. `sync_folder` makes the name durable.
  static absl::StatusOr<std::unique_ptr<CaptureWriter>> Create(const std::string& path,
                                                               bool replace,
                                                               SyncFolder sync_folder = ::fsync);
  ~CaptureWriter();
  CaptureWriter(const CaptureWriter&) = delete;
  CaptureWriter& operator=(const CaptureWriter&) = delete;

  absl::Status WriteHeader(const CaptureHeader& header);
  // The frame: its header is encoded just before the payload. The next has lane sequence records().
  absl::Status WriteRecord(const Buffer& buffer);
  // Trailer, fsync, rename, fsync of the folder. Nothing can be written after it. Where it fails
  // there is no file, and what it would have replaced is gone only if the message says so.
  absl::Status Commit();

  uint64_t records() const { return records_; }
  const std::string& path() const { return path_; }

 private:
  CaptureWriter(std::string path, bool replace, SyncFolder sync_folder, UniqueFd folder,
                UniqueFd file);
  absl::Status Write(const void* bytes, size_t count);
  absl::Status Rename() const;
  // Takes the file away again, but not one that somebody else has put there meanwhile.
  void RemoveRenamed() const;

  const std::string path_;
  const std::string partial_;
  const bool replace_;
  const SyncFolder sync_folder_;
  UniqueFd folder_;
  UniqueFd file_;  // locked
  uint64_t records_ = 0;
  uint64_t bytes_ = 0;
  bool committed_ = false;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_CAPTURE_WRITER_H_
