"""XLA's flags for tests, most of whose time would go into compiling what runs once, on tiny arrays."""

QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
