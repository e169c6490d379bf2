//! Vulkan as far as it is needed to have a compute shader compiled and to be told what became of it
//! (`VK_KHR_pipeline_executable_properties`).

use std::ffi::{CStr, CString, c_char};

use anyhow::{Context, Result, bail};
use ash::khr::pipeline_executable_properties as executables;
use ash::{Device, Entry, Instance, ext, vk};
use undiffuse::gpu::{Capabilities, Class};

use super::spirv::{Buffer, Module};

/// AMD in PCI's list of vendors.
const AMD: u32 = 0x1002;

/// A GPU of AMD as Mesa's driver knows it.
pub struct Gpu {
    device: Device,
    instance: Instance,
    executables: executables::Device,
    name: String,
    driver: String,
    smallest_subgroup: u32,
    features: Features,
    /// The library that the functions above are in.
    _entry: Entry,
}

/// What a GPU is capable of, as far as it matters to a compute shader.
#[derive(Clone, Copy)]
struct Features {
    /// It checks the bounds of buffers itself.
    robust: bool,
    /// Its shaders know f16.
    f16: bool,
}

/// A shader as the driver compiled it.
pub struct Compiled {
    /// Invocations of a subgroup.
    pub subgroup: u32,
    /// Machine code, where the driver can print it.
    pub assembly: Option<String>,
    statistics: Vec<(String, u64)>,
}

impl Compiled {
    /// The number that the driver gives this name, if it has one.
    pub fn statistic(&self, name: &str) -> Option<u64> {
        self.statistics.iter().find(|(own, _)| own == name).map(|&(_, value)| value)
    }
}

impl Gpu {
    /// Opens the first GPU of AMD, or says what is missing.
    ///
    /// # Errors
    /// If Vulkan refuses what it should be able to do.
    pub fn open() -> Result<Result<Self, String>> {
        // SAFETY: the library is the system's Vulkan loader, whose initialisers may be run, and it stays loaded as long as the value.
        let entry = match unsafe { Entry::load() } {
            Ok(entry) => entry,
            Err(error) => return Ok(Err(format!("no Vulkan loader ({error})"))),
        };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: what the structures point to outlives the call.
        let instance = match unsafe { entry.create_instance(&info, None) } {
            Ok(instance) => instance,
            Err(error) => return Ok(Err(format!("no Vulkan driver ({error})"))),
        };
        // SAFETY: the instance is not destroyed yet; neither is it below.
        let adapters = unsafe { instance.enumerate_physical_devices() }.context("enumerating GPUs")?;
        for adapter in adapters {
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut sizes = vk::PhysicalDeviceSubgroupSizeControlProperties::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver).push_next(&mut sizes);
            // SAFETY: the chain of structures lives, and is of a version that the instance was made for.
            unsafe { instance.get_physical_device_properties2(adapter, &mut properties) };
            let properties = properties.properties;
            if properties.vendor_id != AMD || driver.driver_id != vk::DriverId::MESA_RADV {
                continue;
            }
            let name = text(&properties.device_name);
            let smallest_subgroup = sizes.min_subgroup_size;
            let driver = text(&driver.driver_info);
            let (device, features) = device(&instance, adapter)?;
            let executables = executables::Device::new(&instance, &device);
            return Ok(Ok(Self {
                device,
                instance,
                executables,
                name,
                driver,
                smallest_subgroup,
                features,
                _entry: entry,
            }));
        }
        // SAFETY: nothing that was made from it exists.
        unsafe { instance.destroy_instance(None) };
        Ok(Err("no Vulkan driver of Mesa for AMD".into()))
    }

    /// What the driver calls the chip.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The driver's name for itself.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// What kernels are chosen by.
    pub fn capabilities(&self) -> Capabilities {
        let class = Class::of_hardware(AMD, &self.name, self.smallest_subgroup);
        Capabilities { class, f16: self.features.f16, timestamps: true }
    }

    /// Invocations of the smallest subgroup that it has.
    pub fn smallest_subgroup(&self) -> u32 {
        self.smallest_subgroup
    }

    /// Whether it checks the bounds of buffers itself.
    pub fn robust(&self) -> bool {
        self.features.robust
    }

    /// Has `module` compiled.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn compile(&self, module: &Module) -> Result<Compiled> {
        let device = &self.device;
        let bindings: Vec<_> = (module.bindings.iter().zip(0..))
            .map(|(&kind, number)| {
                let kind = match kind {
                    Buffer::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
                    Buffer::Storage => vk::DescriptorType::STORAGE_BUFFER,
                };
                vk::DescriptorSetLayoutBinding::default()
                    .binding(number)
                    .descriptor_type(kind)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let entry = CString::new(&*module.entry)?;
        // SAFETY: all that is made is made of what exists, by structures whose pointers outlive the calls, is of a device that exists, and
        // is destroyed once, when nothing uses it any more. The SPIR-V is valid, since naga wrote it from a validated module.
        unsafe {
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = device.create_descriptor_set_layout(&info, None).context("a layout of bindings")?;
            let sets = [set];
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = device.create_pipeline_layout(&info, None).context("a layout of a pipeline")?;
            let info = vk::ShaderModuleCreateInfo::default().code(&module.words);
            let shader = device.create_shader_module(&info, None).context("a shader module")?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(shader)
                .name(&entry);
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let info = vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout);
            let pipelines = device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
            let pipelines = pipelines.map_err(|(_, error)| error).context("a pipeline")?;
            let pipeline = *pipelines.first().context("no pipeline")?;
            let compiled = self.ask(pipeline);
            device.destroy_pipeline(pipeline, None);
            device.destroy_shader_module(shader, None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(set, None);
            compiled
        }
    }

    /// What the driver tells of `pipeline`.
    ///
    /// # Safety
    /// It is a pipeline of this device, made with the flags that let the driver keep what it tells.
    unsafe fn ask(&self, pipeline: vk::Pipeline) -> Result<Compiled> {
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        // SAFETY: as the caller promises.
        let found = unsafe { self.executables.get_pipeline_executable_properties(&info) }?;
        let Some(executable) = found.first() else { bail!("the pipeline is empty") };
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(0);
        // SAFETY: the pipeline has the executable.
        let statistics = unsafe { self.executables.get_pipeline_executable_statistics(&info) }?;
        let statistics = statistics.iter().map(|statistic| {
            // SAFETY: the driver says which field of the union it has filled; all are plain numbers of at most 64 bits.
            let value = unsafe {
                match statistic.format {
                    vk::PipelineExecutableStatisticFormatKHR::BOOL32 => u64::from(statistic.value.b32),
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => statistic.value.i64.max(0) as u64,
                    vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => statistic.value.f64 as u64,
                    _ => statistic.value.u64,
                }
            };
            (text(&statistic.name), value)
        });
        let statistics = statistics.collect();
        // SAFETY: as above.
        let assembly = unsafe { self.assembly(&info) }?;
        Ok(Compiled { subgroup: executable.subgroup_size, assembly, statistics })
    }

    /// The machine code of an executable.
    ///
    /// # Safety
    /// It is an executable of a pipeline of this device.
    unsafe fn assembly(&self, info: &vk::PipelineExecutableInfoKHR) -> Result<Option<String>> {
        // SAFETY: as the caller promises; this call asks for sizes alone.
        let mut found = unsafe { self.executables.get_pipeline_executable_internal_representations(info) }?;
        let mut texts: Vec<Vec<u8>> = found.iter().map(|one| vec![0; one.data_size]).collect();
        for (one, text) in found.iter_mut().zip(&mut texts) {
            one.p_data = text.as_mut_ptr().cast();
        }
        let mut count = u32::try_from(found.len())?;
        let ask = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        // SAFETY: there are `count` structures, each of which points to as many bytes as it says.
        unsafe { ask(self.device.handle(), info, &mut count, found.as_mut_ptr()) }.result()?;
        let place = found.iter().position(|one| one.is_text != 0 && text(&one.name).contains("ssembly"));
        Ok(place.map(|place| String::from_utf8_lossy(&texts[place]).trim_end_matches('\0').to_owned()))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: both exist, nothing that was made from them does, and they are not used after this.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// A device with the features that wgpu asks for and that matter to a compute shader.
fn device(instance: &Instance, adapter: vk::PhysicalDevice) -> Result<(Device, Features)> {
    // SAFETY: the adapter is the instance's.
    let known = unsafe { instance.enumerate_device_extension_properties(adapter) }?;
    let knows = |name: &CStr| known.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
    if !knows(executables::NAME) {
        bail!("the driver does not tell what becomes of a shader");
    }
    let mut extensions = vec![executables::NAME.as_ptr()];
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
    let mut of_1_1 = vk::PhysicalDeviceVulkan11Features::default();
    let mut of_1_2 = vk::PhysicalDeviceVulkan12Features::default();
    let mut found = vk::PhysicalDeviceFeatures2::default().push_next(&mut of_1_1).push_next(&mut of_1_2);
    if knows(ext::robustness2::NAME) {
        found = found.push_next(&mut robustness);
    }
    // SAFETY: the chain of structures lives, and the adapter knows what they are of.
    unsafe { instance.get_physical_device_features2(adapter, &mut found) };
    let robust = robustness.robust_buffer_access2 != 0;
    let f16 = of_1_1.storage_buffer16_bit_access != 0 && of_1_2.shader_float16 != 0;

    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
    let mut told = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
    let mut of_1_1 = vk::PhysicalDeviceVulkan11Features::default().storage_buffer16_bit_access(f16);
    let mut of_1_2 = vk::PhysicalDeviceVulkan12Features::default().shader_float16(f16);
    let mut of_1_3 = vk::PhysicalDeviceVulkan13Features::default().shader_zero_initialize_workgroup_memory(true);
    let core = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_features(&core)
        .push_next(&mut told)
        .push_next(&mut of_1_1)
        .push_next(&mut of_1_2)
        .push_next(&mut of_1_3);
    if robust {
        extensions.push(ext::robustness2::NAME.as_ptr());
        info = info.push_next(&mut robustness);
    }
    let info = info.enabled_extension_names(&extensions);
    // SAFETY: what the structures point to outlives the call, and every GPU has a queue family 0.
    let device = unsafe { instance.create_device(adapter, &info, None) }.context("opening the GPU")?;
    Ok((device, Features { robust, f16 }))
}

/// A string in an array of characters, up to its zero.
fn text(characters: &[c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().map(|&character| character as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
