// SHA-256 in hex.
#pragma once

#include <filesystem>
#include <string>

namespace ris {

std::string sha256(const std::string& data);

// Of a file, read in pieces. Kind::bundle where it cannot be read.
std::string file_sha256(const std::filesystem::path& path);

}  // namespace ris
