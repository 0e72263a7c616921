//! ONNX Runtime, loaded at run time: this file alone names `ort`. The library is looked at before `ort`, which asserts on a broken
//! one, sees it; one library serves the whole process. Providers are asked in the settings' order, each with error-on-failure, so
//! that a missing accelerator is a reason that we log and tell, never a silent fall to the processor.

use std::ffi::{CStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::ort::environment::Environment;
use ::ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ::ort::logging::LogLevel;
use ::ort::session::Session;
use ::ort::session::builder::GraphOptimizationLevel;
use ::ort::value::TensorRef;

use super::engine::{self, Upgrading};
use super::{InferenceError, Network, Precision, Prepared, Provider, Settings, Tensor, cache, check_shape, guarded, library};
use crate::system::owner;

/// The library that this process uses; `ort`'s own slot is global, so there is one.
struct Loaded {
    environment: Environment,
    path: PathBuf,
    version: String,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// The version and place of the library, once one was loaded.
pub(super) fn loaded() -> Option<(String, PathBuf)> {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.as_ref().map(|loaded| (loaded.version.clone(), loaded.path.clone()))
}

/// Opens the network on the first provider that takes it. Where that is TensorRT and another comes after it, the other serves until
/// the engine is built.
pub(super) fn open(settings: &Settings, prepared: &Prepared) -> Result<Box<dyn Network>, InferenceError> {
    let environment = load(settings, std::env::var_os("ORT_DYLIB_PATH")).map_err(InferenceError::Unavailable)?;
    let mut reasons = Vec::new();
    let mut engine = None;
    for (index, provider) in settings.providers.iter().enumerate() {
        let is_last = index + 1 == settings.providers.len();
        if *provider == Provider::Tensorrt
            && !prepared.may_wait
            && !is_last
            && is_offered(TensorRT::is_available(), "TensorRT").is_ok()
        {
            engine = Some(&settings.providers[index..]);
            continue;
        }
        match on(&environment, settings, prepared, &settings.providers[index..]) {
            Ok(mut network) => {
                network.fallback = (!reasons.is_empty()).then(|| reasons.join("; "));
                let network: Box<dyn Network> = Box::new(network);
                return Ok(match engine {
                    Some(providers) => Box::new(with_engine(network, &environment, settings, prepared, providers)),
                    None => network,
                });
            }
            Err(reason) => reasons.push(format!("{provider}: {reason}")),
        }
    }
    let reason = format!("ONNX Runtime: {}", reasons.join("; "));
    // The processor takes every sound network; an accelerator may just be missing.
    if settings.providers.contains(&Provider::Cpu) {
        return Err(InferenceError::BadModel { model: prepared.model.clone(), reason });
    }
    Err(InferenceError::Unavailable(reason))
}

/// The network on the first of `providers`.
fn on(environment: &Environment, settings: &Settings, prepared: &Prepared, providers: &[Provider]) -> Result<OrtNetwork, String> {
    let session = guarded(|| session(environment, settings, prepared, providers))?;
    let provider = providers.first().map_or_else(String::new, |provider| format!("ort/{provider}"));
    let (model, outputs) = (prepared.model.clone(), prepared.outputs.clone());
    Ok(OrtNetwork { model, shape: prepared.shape, session, outputs, provider, fallback: None })
}

/// `serving` now, and the first of `providers` when its engine is built.
fn with_engine(
    serving: Box<dyn Network>,
    environment: &Environment,
    settings: &Settings,
    prepared: &Prepared,
    providers: &[Provider],
) -> Upgrading {
    let parts = (environment.clone(), settings.clone(), Arc::new(prepared.clone()));
    let open = |providers: Vec<Provider>| -> engine::Open {
        let (environment, settings, prepared) = parts.clone();
        Box::new(move || Ok(Box::new(on(&environment, &settings, &prepared, &providers)?)))
    };
    let plan = engine::Plan {
        model: prepared.model.clone(),
        provider: providers.first().map_or_else(String::new, |provider| format!("ort/{provider}")),
        engine: open(providers.to_vec()),
        reference: open(vec![Provider::Cpu]),
        shape: prepared.shape,
        range: prepared.range,
        tolerance: if prepared.quantized { settings.int8_parity } else { engine::TOLERANCE },
    };
    Upgrading::start(serving, plan)
}

/// One session whose nodes go to the first of `providers` that takes them; its first must work.
fn session(environment: &Environment, settings: &Settings, prepared: &Prepared, providers: &[Provider]) -> Result<Session, String> {
    let mut wanted = Vec::new();
    for (index, provider) in providers.iter().enumerate() {
        match dispatch(*provider, settings, prepared) {
            Ok(dispatch) => wanted.extend(dispatch),
            Err(reason) if index == 0 => return Err(reason),
            Err(_) => {}
        }
        if *provider == Provider::Cpu {
            break;
        }
    }
    if providers.first() == Some(&Provider::Tensorrt) {
        log::info!(model = prepared.model.as_str(); "TensorRT prepares {}; without an engine in the cache this takes minutes", prepared.model);
    }
    build(environment, settings, &wanted, &prepared.graph).map_err(|error| first_line(&error.to_string()))
}

fn build(
    environment: &Environment,
    settings: &Settings,
    providers: &[ExecutionProviderDispatch],
    graph: &[u8],
) -> ::ort::Result<Session> {
    Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_parallel_execution(false)?
        .with_intra_threads(settings.threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_execution_providers(providers)?
        .commit_from_memory(graph)
}

/// What is registered for a provider; nothing for the processor, which is always there.
fn dispatch(provider: Provider, settings: &Settings, prepared: &Prepared) -> Result<Option<ExecutionProviderDispatch>, String> {
    match provider {
        Provider::Cpu => Ok(None),
        Provider::Cuda => {
            is_offered(CUDA::is_available(), "CUDA")?;
            Ok(Some(CUDA::default().build().error_on_failure()))
        }
        Provider::Tensorrt => {
            is_offered(TensorRT::is_available(), "TensorRT")?;
            // TensorRT takes the places where an INT8 network rounds from its file, and needs no calibration.
            let mut tensorrt = TensorRT::default().with_fp16(settings.precision != Precision::Fp32).with_int8(prepared.quantized);
            if let Some(folder) = engine_folder(settings, &prepared.graph)? {
                tensorrt = tensorrt
                    .with_engine_cache(true)
                    .with_engine_cache_path(&folder)
                    .with_engine_cache_prefix(&prepared.model)
                    .with_timing_cache(true)
                    .with_timing_cache_path(&folder);
            }
            Ok(Some(tensorrt.build().error_on_failure()))
        }
    }
}

/// Whether the library was built with a provider.
fn is_offered(offered: ::ort::Result<bool>, name: &str) -> Result<(), String> {
    match offered {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("this build of ONNX Runtime has no {name}")),
        Err(error) => Err(first_line(&error.to_string())),
    }
}

/// The folder of this network's engines, made when it is missing.
fn engine_folder(settings: &Settings, graph: &[u8]) -> Result<Option<String>, String> {
    // The library writes there by itself, and would follow what the folder's user has planted: as root it does without.
    let Some(cache) = settings.cache_dir.as_ref().filter(|cache| !owner::is_anothers(cache)) else { return Ok(None) };
    let version = loaded().map_or_else(|| "unknown".to_owned(), |(version, _)| version);
    let folder = cache::folder(cache, graph, &version, &cache::machine(Path::new("/")), settings.precision);
    std::fs::create_dir_all(&folder).map_err(|error| format!("the engine cache {} cannot be made: {error}", folder.display()))?;
    match folder.to_str() {
        Some(text) if !text.contains('\0') => Ok(Some(text.to_owned())),
        _ => Err(format!("the engine cache {} must have a plain name", folder.display())),
    }
}

/// ONNX Runtime's messages carry stack traces and source lines.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().take(400).collect()
}

struct OrtNetwork {
    model: String,
    shape: [usize; 4],
    session: Session,
    outputs: Vec<String>,
    provider: String,
    fallback: Option<String>,
}

impl Network for OrtNetwork {
    fn run(&mut self, input: &Tensor) -> Result<Vec<Tensor>, InferenceError> {
        check_shape(&self.model, &self.shape, input)?;
        run(&mut self.session, input)
            .map_err(|error| InferenceError::Run { model: self.model.clone(), reason: first_line(&error.to_string()) })
    }

    fn output_names(&self) -> &[String] {
        &self.outputs
    }

    fn provider(&self) -> &str {
        &self.provider
    }

    fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}

fn run(session: &mut Session, input: &Tensor) -> ::ort::Result<Vec<Tensor>> {
    let view = TensorRef::from_array_view((input.shape.as_slice(), input.data.as_slice()))?;
    let outputs = session.run(::ort::inputs![view])?;
    let plain = outputs.values().map(|value| {
        let (shape, data) = value.try_extract_tensor::<f32>()?;
        // A finished tensor has no open dimension.
        Ok(Tensor { shape: shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect(), data: data.to_vec() })
    });
    plain.collect()
}

/// Loads the library once; later calls get the same one, or an error when they ask for another.
fn load(settings: &Settings, environment_path: Option<OsString>) -> Result<Environment, String> {
    let mut slot = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let from_environment = environment_path.filter(|path| !path.is_empty()).map(PathBuf::from);
    // Who names a library in an environment of their own may write it. Root's environment may be what another user left there.
    let and = from_environment.as_ref().and(Some(rustix::process::geteuid().as_raw())).filter(|user| *user != 0);
    let asked = from_environment.or_else(|| settings.library.clone());
    if let Some(loaded) = slot.as_ref() {
        return match asked.map(|asked| resolve(&asked)).transpose()? {
            Some(path) if !same_file(&path, &loaded.path) => Err(format!(
                "ONNX Runtime {} is loaded already from {}: restart to use {}",
                loaded.version,
                loaded.path.display(),
                path.display()
            )),
            _ => Ok(loaded.environment.clone()),
        };
    }
    let (path, version) = match asked {
        Some(asked) => {
            let path = resolve(&asked)?;
            inspect(&path, and)?
        }
        None => search(&well_known())?,
    };
    let environment = guarded(|| start(&path)).map_err(|reason| format!("ONNX Runtime at {}: {reason}", path.display()))?;
    log::info!(library = path.display().to_string().as_str(), version = version.as_str(); "ONNX Runtime {version} loaded");
    *slot = Some(Loaded { environment: environment.clone(), path, version });
    Ok(environment)
}

fn start(path: &Path) -> Result<Environment, String> {
    let builder = ::ort::init_from(path).map_err(|error| error.to_string())?;
    let environment = builder
        .with_name("faceid")
        .with_telemetry(false)
        .with_logger(Arc::new(|level, _category, _id, _place, message| {
            // A failure comes back as an error as well; what the library only remarks is for whoever debugs.
            let level = if level >= LogLevel::Error { log::Level::Warn } else { log::Level::Debug };
            log::log!(target: "onnxruntime", level, "{}", first_line(message));
        }))
        .build()
        .map_err(|error| first_line(&error.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// The library itself: a folder stands for the library in it.
fn resolve(asked: &Path) -> Result<PathBuf, String> {
    if !asked.is_dir() {
        return Ok(asked.to_path_buf());
    }
    libraries_in(asked).into_iter().next().ok_or_else(|| format!("there is no libonnxruntime.so in {}", asked.display()))
}

/// `libonnxruntime.so`, then `libonnxruntime.so.*` with the highest name first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so."))
        .collect();
    names.sort_unstable_by(|a, b| (a.len() > 17).cmp(&(b.len() > 17)).then_with(|| b.cmp(a)));
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// Folders that installers of ONNX Runtime use: the linker's, Microsoft's archives, Debian's and pip's Python trees (a wheel carries
/// the library in `onnxruntime/capi`).
fn well_known() -> Vec<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let mut folders: Vec<PathBuf> =
        ["/usr/lib/faceid", "/usr/local/lib", "/opt/onnxruntime/lib", "/usr/lib"].map(PathBuf::from).into();
    folders.push(Path::new("/usr/lib").join(triple));
    for root in ["/usr/local/lib", "/usr/lib"] {
        let Ok(entries) = std::fs::read_dir(root) else { continue };
        let mut pythons: Vec<_> = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("python3")).collect();
        pythons.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.file_name()));
        for python in pythons {
            folders.extend(["dist-packages", "site-packages"].map(|kind| python.path().join(kind).join("onnxruntime/capi")));
        }
    }
    folders
}

/// The first sound library in `folders`; the error says what was wrong with those that are there.
fn search(folders: &[PathBuf]) -> Result<(PathBuf, String), String> {
    let mut reasons = Vec::new();
    for path in folders.iter().flat_map(|folder| libraries_in(folder)) {
        match inspect(&path, None) {
            Ok(found) => return Ok(found),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        return Err("ONNX Runtime is not installed in any usual place: install it and set `library` or ORT_DYLIB_PATH to its \
                    libonnxruntime.so (`models/fetch-onnxruntime.sh` brings a CPU build)"
            .into());
    }
    Err(reasons.join("; "))
}

/// The file of a library that can be used, and its version; the error is a sentence. `and`: see [`library::examine`].
pub(super) fn inspect(path: &Path, and: Option<u32>) -> Result<(PathBuf, String), String> {
    let named = |reason: String| format!("{} is no ONNX Runtime: {reason}", path.display());
    let file = library::examine(path, b"OrtGetApiBase", and).map_err(|reason| match reason.starts_with('/') {
        // The place that others may write is named by itself.
        true => format!("{} is not loaded: {reason}", path.display()),
        false => named(reason),
    })?;
    let version = ask_version(&file).map_err(named)?;
    Ok((file, version))
}

/// Loads the library and asks it for its version and for the API that `ort` needs.
#[expect(
    unsafe_code,
    reason = "a shared library can only be asked through its C entry point; ort would panic where this returns an error"
)]
fn ask_version(path: &Path) -> Result<String, String> {
    type EntryPoint = unsafe extern "C" fn() -> *const ::ort::sys::OrtApiBase;
    // SAFETY: loading runs the library's initialisers. It is a whole library with our entry point, and nobody may write it who could not
    // change this program as well (`library::examine`).
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| format!("it does not load ({error})"))?;
    // SAFETY: the symbol has this type in every release of ONNX Runtime (onnxruntime_c_api.h).
    let entry = unsafe { library.get::<EntryPoint>(b"OrtGetApiBase\0") }.map_err(|_| "it has no entry point OrtGetApiBase")?;
    // SAFETY: it takes nothing and gives a pointer to a static or null; the library stays loaded while it is used.
    let base = unsafe { entry().as_ref() }.ok_or("its entry point gives nothing")?;
    // SAFETY: it gives a null-terminated static text (onnxruntime_c_api.h), checked for null.
    let version = unsafe {
        let text = (base.GetVersionString)();
        if text.is_null() {
            return Err("it states no version".into());
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().flatten(), parts.next().flatten());
    let oldest = ::ort::MINOR_VERSION;
    if major != Some(1) || minor.is_none_or(|minor| minor < oldest) {
        return Err(format!("it is version {}, and 1.{oldest} or newer is needed", version.escape_default()));
    }
    // SAFETY: it takes a number and gives a pointer to a static or null, which is only looked at.
    if unsafe { (base.GetApi)(oldest) }.is_null() {
        return Err(format!("version {version} does not offer the interface of 1.{oldest}"));
    }
    // A sound library stays loaded: ort opens it next, and closing one that has started threads is not safe.
    std::mem::forget(library);
    Ok(version)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{BackendChoice, onnx::make, prepare, probe};
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// A library with a C source of the test's own; `None`, loudly, without a C compiler.
    fn compile(folder: &Path, source: &str) -> Option<PathBuf> {
        let (from, to) = (folder.join("fake.c"), folder.join("libonnxruntime.so"));
        std::fs::write(&from, source).unwrap();
        // Where tests run under emulation, the machine's own compiler makes libraries for the machine.
        let compiler = std::env::var_os("FACEID_CC").unwrap_or_else(|| "cc".into());
        match Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&to).arg(&from).status() {
            Ok(status) if status.success() => Some(to),
            _ => {
                eprintln!("SKIPPED: no C compiler to build a fake library with");
                None
            }
        }
    }

    #[test]
    fn files_that_are_no_library_are_refused_with_a_sentence() {
        let folder = folder();
        let missing = folder.path().join("missing.so");
        assert!(inspect(&missing, None).unwrap_err().contains("no such file"));
        assert!(inspect(folder.path(), None).unwrap_err().contains("no file"));
        let text = folder.path().join("text.so");
        std::fs::write(&text, "not a library\n").unwrap();
        assert!(inspect(&text, None).unwrap_err().contains("no shared library"));
        std::fs::write(&text, b"\x7fELF\x02\x01\x01").unwrap();
        assert!(inspect(&text, None).unwrap_err().contains("cut off"));
    }

    #[test]
    fn a_truncated_library_is_refused_before_the_loader_crashes_on_it() {
        let Some(real) = super::super::tests::library() else { return };
        let bytes = std::fs::read(real).unwrap();
        let folder = folder();
        for part in [100, 5_000, bytes.len() / 2, bytes.len() - 1] {
            let path = folder.path().join("libonnxruntime.so");
            std::fs::write(&path, &bytes[..part]).unwrap();
            assert!(inspect(&path, None).unwrap_err().contains("cut off"), "{part}");
        }
    }

    #[test]
    fn another_library_and_an_old_one_are_refused_with_a_sentence() {
        let folder = folder();
        let Some(path) = compile(folder.path(), "int something(void) { return 1; }") else { return };
        assert!(inspect(&path, None).unwrap_err().contains("no entry point"));
        for (version, word) in
            [("1.10.0", "1.17 or newer"), ("2.20.0", "1.17 or newer"), ("", "1.17 or newer"), ("1.17.0", "does not offer")]
        {
            let folder = self::folder();
            let source = format!(
                "static const char* version(void) {{ return \"{version}\"; }}\n\
                 static const void* api(unsigned v) {{ (void)v; return 0; }}\n\
                 static struct {{ const void* (*api)(unsigned); const char* (*version)(void); }} base = {{ api, version }};\n\
                 const void* OrtGetApiBase(void) {{ return &base; }}\n"
            );
            let path = compile(folder.path(), &source).unwrap();
            let error = inspect(&path, None).unwrap_err();
            assert!(error.contains(word), "{version}: {error}");
        }
    }

    #[test]
    fn without_a_library_the_way_out_is_named() {
        let folder = folder();
        let error = search(&[folder.path().to_path_buf()]).unwrap_err();
        assert!(error.contains("ORT_DYLIB_PATH"), "{error}");
        assert!(resolve(folder.path()).unwrap_err().contains("no libonnxruntime.so"));
    }

    #[test]
    fn a_folder_stands_for_the_library_in_it() {
        let folder = folder();
        for name in ["libonnxruntime.so.1.20.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(resolve(folder.path()).unwrap().ends_with("libonnxruntime.so.1.32.0"));
        std::fs::write(folder.path().join("libonnxruntime.so"), "").unwrap();
        assert!(resolve(folder.path()).unwrap().ends_with("libonnxruntime.so"));
    }

    /// What the next test starts in a process of its own; in the ordinary run it has nothing to do.
    #[test]
    fn in_a_child_process_with_a_broken_library() {
        if std::env::var_os("FACEID_TEST_BROKEN_LIBRARY").is_none() {
            return;
        }
        let forced = probe(&Settings { backend: BackendChoice::Ort, ..Settings::default() });
        assert_eq!(forced.provider, None);
        assert!(forced.reason.unwrap().contains("no ONNX Runtime"));
        if cfg!(feature = "tract") {
            let auto = probe(&Settings::default());
            assert_eq!(auto.provider.as_deref(), Some("tract/cpu"));
            assert!(auto.reason.unwrap().contains("no ONNX Runtime"));
        }
        println!("the child saw a clear error");
    }

    #[test]
    fn a_broken_library_in_the_environment_is_a_reason_and_tract_takes_over() {
        let folder = folder();
        let text = folder.path().join("text.so");
        std::fs::write(&text, "not a library\n").unwrap();
        for library in [text, folder.path().join("missing.so")] {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "inference::ort::tests::in_a_child_process_with_a_broken_library", "--nocapture"])
                .env("FACEID_TEST_BROKEN_LIBRARY", "1")
                .env("ORT_DYLIB_PATH", &library)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("the child saw a clear error"), "{said}");
            assert!(!said.contains("panicked"), "{said}");
        }
    }

    #[test]
    fn a_missing_accelerator_is_an_error_or_a_told_reason_never_silence() {
        let Some(library) = super::super::tests::library() else { return };
        let settings = Settings { library: Some(library), providers: vec![Provider::Cuda], ..Settings::default() };
        let prepared = prepare("relu", [1, 3, 4, 4], &make::relu(&[1, 3, 4, 4]), true).unwrap();
        let error = match open(&settings, &prepared) {
            Err(error) => error,
            // A machine with a GPU and a GPU build may run this test, too.
            Ok(network) => return assert_eq!(network.provider(), "ort/cuda"),
        };
        assert!(matches!(&error, InferenceError::Unavailable(reason) if reason.contains("no CUDA")), "{error}");
        let settings = Settings { providers: vec![Provider::Tensorrt, Provider::Cuda, Provider::Cpu], ..settings };
        let network = open(&settings, &prepared).unwrap();
        assert_eq!(network.provider(), "ort/cpu");
        let reason = network.fallback().unwrap();
        assert!(reason.contains("no TensorRT") && reason.contains("no CUDA"), "{reason}");
    }

    #[test]
    fn a_second_library_in_one_process_is_refused() {
        let Some(library) = super::super::tests::library() else { return };
        let settings = Settings { library: Some(library), ..Settings::default() };
        load(&settings, None).unwrap();
        let other = folder();
        let path = other.path().join("libonnxruntime.so");
        std::fs::write(&path, "").unwrap();
        let Err(error) = load(&settings, Some(path.into())) else { panic!("a second library was taken") };
        assert!(error.contains("restart"), "{error}");
    }

    #[test]
    fn a_network_that_only_looks_sound_is_an_error() {
        let Some(library) = super::super::tests::library() else { return };
        let settings = Settings { library: Some(library), providers: vec![Provider::Cpu], ..Settings::default() };
        let node =
            super::super::onnx::Node { inputs: vec!["x"], outputs: vec!["y"], name: "", operator: "NoSuchOperator", domain: "" };
        let prepared = prepare("odd", [1, 3, 4, 4], &make::model(13, &[1, 3, 4, 4], &[node], &[]), true).unwrap();
        assert!(matches!(open(&settings, &prepared), Err(InferenceError::BadModel { .. })));
    }
}
