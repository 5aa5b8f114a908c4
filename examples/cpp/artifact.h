// Reads an artifact of dscc: a zip whose members are stored as they are, so that the whole file is mapped and a member is
// a range of it. The hashes are not checked here; `dscc inspect` does that.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

namespace dscc {

class Artifact {
 public:
  explicit Artifact(const std::string& path) {
    int fd = open(path.c_str(), O_RDONLY);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) throw std::runtime_error("cannot read '" + path + "'");
    size_ = static_cast<size_t>(info.st_size);
    void* mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) throw std::runtime_error("cannot map '" + path + "'");
    data_ = static_cast<const char*>(mapped);
    if (!ReadMembers()) throw std::runtime_error("'" + path + "' is not an artifact of dscc, or it is damaged");
  }
  Artifact(const Artifact&) = delete;
  ~Artifact() { munmap(const_cast<char*>(data_), size_); }

  // The content of a member, where it lies in the mapped file.
  std::string_view Member(const std::string& name) const { return members_.at(name); }

 private:
  template <typename T>
  T Read(size_t at) const {
    if (at > size_ || size_ - at < sizeof(T)) throw std::runtime_error("the artifact is truncated");
    T value;
    std::memcpy(&value, data_ + at, sizeof(T));
    return value;
  }

  // The last bytes of the file are the zip's end records and a comment of fixed length. Sizes and places are in the
  // 64-bit form throughout (PKWARE APPNOTE, 4.3.14 and 4.5.3).
  bool ReadMembers() {
    constexpr size_t kComment = 85, kEnd = 22, kLocator = 20;
    if (size_ < kComment + kEnd + kLocator) return false;
    size_t locator = size_ - kComment - kEnd - kLocator;
    if (Read<uint32_t>(locator) != 0x07064b50) return false;
    auto end64 = Read<uint64_t>(locator + 8);
    if (Read<uint32_t>(end64) != 0x06064b50) return false;
    auto count = Read<uint64_t>(end64 + 32);
    auto at = Read<uint64_t>(end64 + 48);
    for (uint64_t i = 0; i < count; ++i) {
      if (Read<uint32_t>(at) != 0x02014b50) return false;
      size_t name_size = Read<uint16_t>(at + 28), extra_size = Read<uint16_t>(at + 30);
      size_t extra = at + 46 + name_size;  // id, length, size, stored size, place of the local header
      auto size = Read<uint64_t>(extra + 4);
      auto local = Read<uint64_t>(extra + 20);
      size_t start = local + 30 + Read<uint16_t>(local + 26) + Read<uint16_t>(local + 28);
      if (start > size_ || size > size_ - start) return false;
      members_[std::string(data_ + at + 46, name_size)] = {data_ + start, size};
      at = extra + extra_size;
    }
    return members_.count("manifest.json") && members_.count("model.so") && members_.count("weights.safetensors");
  }

  const char* data_ = nullptr;
  size_t size_ = 0;
  std::map<std::string, std::string_view> members_;
};

}  // namespace dscc
