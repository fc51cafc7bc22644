#include "sha256.hpp"

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <fstream>
#include <memory>
#include <vector>

#include "errors.hpp"

namespace ris {
namespace {

class Digest {
public:
    Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
        require(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
    }

    void add(const void* data, std::size_t size) { require(EVP_DigestUpdate(context_.get(), data, size) == 1); }

    std::string hex() {
        std::array<unsigned char, 32> bytes{};
        require(EVP_DigestFinal_ex(context_.get(), bytes.data(), nullptr) == 1);
        std::string text;
        for (const unsigned byte : bytes) {
            text += "0123456789abcdef"[byte >> 4U];
            text += "0123456789abcdef"[byte & 15U];
        }
        return text;
    }

private:
    static void require(bool done) {
        if (!done) throw Error(Kind::internal, "OpenSSL cannot compute SHA-256. Check its configuration.");
    }

    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256(const std::string& data) {
    Digest digest;
    digest.add(data.data(), data.size());
    return digest.hex();
}

std::string file_sha256(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> piece(std::size_t{1} << 20U);
    Digest digest;
    while (file) {
        file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
        digest.add(piece.data(), static_cast<std::size_t>(file.gcount()));
    }
    if (!file.eof()) throw Error(Kind::bundle, path.string() + " cannot be read. Check its permissions.");
    return digest.hex();
}

}  // namespace ris
