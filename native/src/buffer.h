// Aligned memory that is freed with its owner.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace embellama {

// Zeroed memory for `n` values of T, on a cache line's boundary.
template <class T>
class Buffer {
public:
    static constexpr size_t ALIGNMENT = 64;

    Buffer() = default;
    // Throws std::bad_alloc.
    explicit Buffer(size_t n) : size_(n) {
        if (n == 0) return;
        if (n > ((size_t)-1 - ALIGNMENT) / sizeof(T)) throw std::bad_alloc();
        const size_t bytes = (n * sizeof(T) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
#ifdef _WIN32
        data_ = static_cast<T*>(_aligned_malloc(bytes, ALIGNMENT));
#else
        data_ = static_cast<T*>(std::aligned_alloc(ALIGNMENT, bytes));
#endif
        if (data_ == nullptr) throw std::bad_alloc();
        std::memset(static_cast<void*>(data_), 0, bytes);
    }
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
#ifdef _WIN32
        _aligned_free(data_);
#else
        std::free(data_);
#endif
    }

    T* get() { return data_; }
    const T* get() const { return data_; }
    size_t size() const { return size_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }

private:
    T* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace embellama
