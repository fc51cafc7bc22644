#include "bundle.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <system_error>

#include "errors.hpp"
#include "sha256.hpp"

namespace ris {
namespace {

namespace fs = std::filesystem;

// A manifest has some 20 kB; more than this is no manifest and would only fill the memory.
constexpr std::uintmax_t largest_manifest = std::uintmax_t{64} << 20U;

bool is_file(const fs::path& path) {
    std::error_code ignored;
    return fs::is_regular_file(path, ignored);
}

std::string read_text(const fs::path& path) {
    std::error_code failed;
    const auto size = fs::file_size(path, failed);
    if (!failed && size > largest_manifest) {
        throw Error(Kind::bundle, path.string() + " has " + std::to_string(size) + " bytes; no manifest is that large.");
    }
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw Error(Kind::bundle, path.string() + " cannot be read. Check its permissions.");
    return text;
}

void check_file(const fs::path& root, const FileSpec& spec) {
    const fs::path relative(spec.file);
    if (relative.is_absolute() || std::find(relative.begin(), relative.end(), "..") != relative.end()) {
        throw Error(Kind::bundle,
                    "manifest.json names '" + spec.file + "', outside the bundle. Do not use this bundle.");
    }
    const auto path = root / relative;
    if (!is_file(path)) {
        throw Error(Kind::bundle, "bundle " + root.string() + " lacks " + spec.file + ". Rebuild or re-copy the bundle.");
    }
    const auto actual = file_sha256(path);
    if (actual != spec.sha256) {
        throw Error(Kind::bundle, path.string() + " was changed: SHA-256 is " + actual.substr(0, 16) +
                                      "..., manifest says " + spec.sha256.substr(0, 16) +
                                      ".... Rebuild or re-copy the bundle.");
    }
}

}  // namespace

Bundle open_bundle(const fs::path& path) {
    const auto manifest_path = path / "manifest.json";
    if (!is_file(manifest_path)) {
        throw Error(Kind::bundle,
                    "no bundle at " + path.string() + ": manifest.json not found. Pass a bundle directory.");
    }
    const auto text = read_text(manifest_path);
    Bundle bundle{path, read_manifest(text), sha256(text)};
    for (const auto& file : bundle.manifest.files) check_file(path, file);
    return bundle;
}

}  // namespace ris
