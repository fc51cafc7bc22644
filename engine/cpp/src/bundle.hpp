// Opening a bundle: reading its manifest and refusing files that are not what it says.
#pragma once

#include <filesystem>
#include <string>

#include "manifest.hpp"

namespace ris {

struct Bundle {
    std::filesystem::path path;
    Manifest manifest;
    std::string id;  // SHA-256 of the manifest, which holds the hash of every other file

    std::filesystem::path graph_path(Role role) const { return path / graph_of(manifest, role).file.file; }
};

// Kind::bundle where there is none, its manifest cannot be used, or a file is missing, lies outside the bundle or
// differs from its hash.
Bundle open_bundle(const std::filesystem::path& path);

}  // namespace ris
