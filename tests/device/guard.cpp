// Device guards for CUDA and MPS that know neither: device 0, its default stream, nothing to wait for.
//
// autograd asks the guard of a tensor's device for streams, and the hooks of the accelerator for a context. With these answers it
// runs the backward pass of tensors that only say that they are on such a device (pretended.py).
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cstdint>
#include <cstring>

using namespace c10;

struct PretendedGuard final : public impl::DeviceGuardImplInterface {
  DeviceType kind;
  explicit PretendedGuard(DeviceType kind) : kind(kind) {}
  DeviceType type() const override { return kind; }
  Device exchangeDevice(Device) const override { return Device(kind, 0); }
  Device getDevice() const override { return Device(kind, 0); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, Device(kind, 0)); }
  Stream getNewStream(Device, int) const override { return Stream(Stream::DEFAULT, Device(kind, 0)); }
  Stream exchangeStream(Stream stream) const override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
};

static PretendedGuard cuda_guard(DeviceType::CUDA);
static PretendedGuard mps_guard(DeviceType::MPS);

static bool yes(const void*, DeviceIndex) { return true; }
static bool no(const void*) { return false; }

// The hooks cannot be replaced once torch has made them. Their table of virtual functions can: by a copy with other answers. This
// trusts the layout that the Itanium ABI gives the table, and that it has no more than `entries` functions; guard.py lists the
// versions of torch for which both were seen to hold.
class Hooks {
 public:
  explicit Hooks(const at::AcceleratorHooksInterface& hooks) {
    constexpr int entries = 118;
    void*** object = reinterpret_cast<void***>(&const_cast<at::AcceleratorHooksInterface&>(hooks));
    void** copy = new void*[header + entries];
    std::memcpy(copy, *object - header, (header + entries) * sizeof(void*));
    table = copy + header;
    *object = table;
  }

  template <typename Member, typename Answer>
  void answer(Member member, Answer* with) {
    std::uintptr_t offset;
    std::memcpy(&offset, &member, sizeof offset);
    table[(offset - 1) / sizeof(void*)] = reinterpret_cast<void*>(with);
  }

 private:
  static constexpr int header = 2;
  void** table;
};

extern "C" void pretend_cuda() {
  impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(&cuda_guard);
  Hooks(at::detail::getCUDAHooks()).answer(&at::AcceleratorHooksInterface::hasPrimaryContext, &yes);
}

// torch built for CUDA takes that for the accelerator, whatever the tensors say, until its hooks deny it.
extern "C" void pretend_mps() {
  impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::MPS)].store(&mps_guard);
  Hooks cuda(at::detail::getCUDAHooks());
  cuda.answer(&at::AcceleratorHooksInterface::hasPrimaryContext, &no);
  cuda.answer(&at::AcceleratorHooksInterface::isBuilt, &no);
  cuda.answer(&at::AcceleratorHooksInterface::isAvailable, &no);
  cuda.answer(&at::CUDAHooksInterface::hasCUDA, &no);
  Hooks mps(at::detail::getMPSHooks());
  mps.answer(&at::AcceleratorHooksInterface::hasPrimaryContext, &yes);
  mps.answer(&at::AcceleratorHooksInterface::isBuilt, &yes);
  mps.answer(&at::AcceleratorHooksInterface::isAvailable, &yes);
  mps.answer(&at::MPSHooksInterface::hasMPS, &yes);
}
