//! Opening, checking and running over both backends: small networks made here always, the real ones where they are at hand.

use std::path::PathBuf;

use image::imageops::FilterType;

use super::manifest::{ColorOrder, Input, Manifest, Role};
use super::onnx::{Graph, Node, Value, fields, make, put_bytes, put_varint, tag};
use super::*;

/// None: a product and a maximum round once, as PRelu's own product does, and no other operation changes. But on 64-bit Arm tract
/// multiplies and adds with one rounding wherever it can put the two together, and that is elsewhere then (1.2e-6 was seen).
const REWRITE_TOLERANCE: f32 = if cfg!(target_arch = "aarch64") { 1e-5 } else { 0.0 };

/// The two backends sum in different orders, choose other convolution algorithms and approximate the logistic function differently.
const BACKEND_TOLERANCE: f32 = 1e-4;

/// Outputs smaller than this are held against this: far from any face a detector's scores are all but zero.
const SMALLEST_SCALE: f32 = 0.1;

fn missing(what: &str) {
    assert!(std::env::var_os("FACEID_REQUIRE_SHARED").is_none_or(|value| value != "1"), "{what} is required and not there");
    eprintln!("SKIPPED: {what} is not there");
}

/// ONNX Runtime's library for tests: the environment's, or what `models/fetch-onnxruntime.sh` brought.
pub(super) fn library() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let asked = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let library = asked.unwrap_or_else(|| root.join(".cache/onnxruntime/libonnxruntime.so"));
    if !library.is_file() {
        missing("ONNX Runtime (models/fetch-onnxruntime.sh)");
        return None;
    }
    Some(library)
}

pub(super) fn shared(part: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FACEID_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = folder.join(part);
    if !path.is_dir() {
        missing(&format!("shared/{part}"));
        return None;
    }
    Some(path)
}

/// Settings for each backend that is built in and at hand.
fn backends() -> Vec<Settings> {
    let mut all = Vec::new();
    if cfg!(feature = "ort")
        && let Some(library) = library()
    {
        let providers = vec![Provider::Cpu];
        all.push(Settings { backend: BackendChoice::Ort, providers, library: Some(library), ..Settings::default() });
    }
    if cfg!(feature = "tract") {
        all.push(Settings { backend: BackendChoice::Tract, ..Settings::default() });
    }
    all
}

fn model(text: &str) -> ModelId {
    text.parse().unwrap()
}

/// A photo (or a drawn scene) as the network's input.
fn picture(model: &Model, photo: Option<&Path>) -> Tensor {
    let (width, height) = (model.input.width, model.input.height);
    let picture = match photo {
        Some(path) => image::open(path).unwrap().resize_exact(width, height, FilterType::Triangle).to_rgb8(),
        None => image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x * 2 % 256) as u8, (y * 3 % 256) as u8, ((x ^ y) % 256) as u8])
        }),
    };
    let mut data = Vec::new();
    for channel in 0..3 {
        let source = if model.input.color == ColorOrder::Rgb { channel } else { 2 - channel };
        let (mean, deviation) = (model.input.mean[channel], model.input.deviation[channel]);
        data.extend(picture.pixels().map(|pixel| (f32::from(pixel.0[source]) - mean) / deviation));
    }
    Tensor { shape: vec![1, 3, height as usize, width as usize], data }
}

/// The largest difference, as a part of the output's largest number (or of [`SMALLEST_SCALE`]).
fn difference(a: &[Tensor], b: &[Tensor]) -> f32 {
    assert_eq!(a.len(), b.len());
    let mut worst = 0.0f32;
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.shape, b.shape);
        let largest = a.data.iter().fold(SMALLEST_SCALE, |largest, value| largest.max(value.abs()));
        for (a, b) in a.data.iter().zip(&b.data) {
            assert!(a.is_finite() && b.is_finite());
            worst = worst.max((a - b).abs() / largest);
        }
    }
    worst
}

fn photos() -> Vec<Option<PathBuf>> {
    let Some(folder) = shared("faces/spoof") else { return vec![None] };
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|kind| kind == "jpg"));
    all.sort();
    all.into_iter().map(Some).chain([None]).collect()
}

fn own_model(folder: &Path, bytes: &[u8], size: u32) -> Model {
    let text = format!(
        "version = 1\n[models.own]\nfile = \"own.onnx\"\nsha256 = \"{}\"\nlicence = {{ name = \"test\" }}\norigin.local.note = \"test\"\n\
         input = {{ width = {size}, height = {size}, color = \"rgb\", mean = [0, 0, 0], deviation = [1, 1, 1] }}\n\
         role.liveness = {{ crop = \"shifted\", scale = 2, classes = 2, live-class = 0 }}\n",
        hex(&Sha256::digest(bytes))
    );
    std::fs::write(folder.join("own.onnx"), bytes).unwrap();
    Manifest::parse("test", &text).unwrap().models.remove(&model("own")).unwrap()
}

fn refusal(settings: &Settings, entry: &Model, folder: &Path) -> String {
    match open(settings, &model("own"), entry, folder) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_wrong_file_is_refused_by_name_before_a_backend_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = make::relu(&[1, 3, 16, 16]);
    let mut entry = own_model(folder.path(), &bytes, 16);
    let path = folder.path().join("own.onnx");
    let settings = Settings::default();

    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(refusal(&settings, &entry, folder.path()).contains("not the pinned file"));
    entry.bytes = bytes.len() as u64;
    assert!(refusal(&settings, &entry, folder.path()).contains("the pinned file has"));
    std::fs::remove_file(&path).unwrap();
    assert!(refusal(&settings, &entry, folder.path()).contains("faceid models fetch"));
    std::fs::create_dir(&path).unwrap();
    assert!(refusal(&settings, &entry, folder.path()).contains("own.onnx"));
    entry.sha256.clear();
    assert!(refusal(&settings, &entry, folder.path()).contains("no SHA-256 is pinned"));
}

#[test]
fn a_pinned_file_that_is_no_network_or_another_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let entry = own_model(folder.path(), b"a text file that somebody pinned\n", 16);
    assert!(refusal(&settings, &entry, folder.path()).contains("ONNX file"), "text");
    let whole = make::relu(&[1, 3, 16, 16]);
    let entry = own_model(folder.path(), &whole[..whole.len() / 2], 16);
    assert!(refusal(&settings, &entry, folder.path()).contains("no whole ONNX file"), "truncated");
    let entry = own_model(folder.path(), &make::relu(&[1, 3, 112, 112]), 16);
    let said = refusal(&settings, &entry, folder.path());
    assert!(said.contains("another network") && said.contains("1×3×112×112") && said.contains("1×3×16×16"), "{said}");
}

/// Puts a tensor somewhere into a file: fields of the graph, or of the model.
type Within<'a> = Box<dyn Fn(&[u8]) -> Vec<(u32, Vec<u8>)> + 'a>;

/// The same with what `within` makes of a tensor put into the graph or the file.
fn with_tensor(tensor: &[u8], within: &Within<'_>, graph: bool) -> Vec<u8> {
    let whole = make::relu(&[1, 3, 4, 4]);
    let put = |fields: &[(u32, Vec<u8>)], out: &mut Vec<u8>| fields.iter().for_each(|(tag, bytes)| put_bytes(*tag, bytes, out));
    let mut model = Vec::new();
    for field in fields(&whole).map(Result::unwrap) {
        match field.value {
            Value::Bytes(inner) if graph && field.tag == tag::MODEL_GRAPH => {
                let mut inner = inner.to_vec();
                put(&within(tensor), &mut inner);
                put_bytes(tag::MODEL_GRAPH, &inner, &mut model);
            }
            _ => model.extend_from_slice(field.raw),
        }
    }
    if !graph {
        put(&within(tensor), &mut model);
    }
    model
}

#[test]
fn weights_in_another_file_are_refused_wherever_they_are_named_and_so_is_what_lies_too_deep() {
    let wrap = |tag: u32, bytes: &[u8]| {
        let mut out = Vec::new();
        put_bytes(tag, bytes, &mut out);
        out
    };
    let mut location = wrap(1, b"location");
    put_bytes(2, b"../../../etc/shadow", &mut location);
    let mut named = make::floats("w", &[1], &[], true);
    put_bytes(tag::TENSOR_EXTERNAL, &location, &mut named);
    let mut said = make::floats("w", &[1], &[], true);
    put_varint(tag::TENSOR_LOCATION, 1, &mut said);
    let inside = make::floats("w", &[1], &[1.0], true);
    // A node's attribute, a branch of its own, a sparse tensor's two halves, a function, what was kept of the training.
    let node = |attribute: Vec<u8>| wrap(5, &attribute);
    let places: Vec<(&str, bool, Within<'_>)> = vec![
        ("initializer", true, Box::new(|t| vec![(5, t.to_vec())])),
        ("attribute", true, Box::new(|t| vec![(1, node(wrap(5, t)))])),
        ("attribute's list", true, Box::new(|t| vec![(1, node(wrap(10, t)))])),
        ("branch", true, Box::new(|t| vec![(1, node(wrap(6, &wrap(5, t))))])),
        ("branches", true, Box::new(|t| vec![(1, node(wrap(11, &wrap(1, &node(wrap(5, t))))))])),
        ("sparse initializer", true, Box::new(|t| vec![(15, wrap(1, t))])),
        ("its indices", true, Box::new(|t| vec![(15, wrap(2, t))])),
        ("sparse attribute", true, Box::new(|t| vec![(1, node(wrap(22, &wrap(1, t))))])),
        ("sparse attribute's list", true, Box::new(|t| vec![(1, node(wrap(23, &wrap(1, t))))])),
        ("function", false, Box::new(|t| vec![(25, wrap(7, &node(wrap(5, t))))])),
        ("function's attribute", false, Box::new(|t| vec![(25, wrap(11, &wrap(5, t)))])),
        ("training", false, Box::new(|t| vec![(20, wrap(1, &wrap(5, t)))])),
    ];
    for (place, graph, within) in &places {
        for external in [&named, &said] {
            let told = Graph::read(&with_tensor(external, within, *graph)).unwrap_err().to_string();
            assert!(told.contains("weights in another file"), "{place}: {told}");
        }
        assert!(Graph::read(&with_tensor(&inside, within, *graph)).is_ok(), "{place}");
    }
    let bomb = (0..200).fold(Vec::new(), |inner, _| wrap(1, &wrap(5, &wrap(6, &inner))));
    let branch: Within<'_> = Box::new(|bomb| vec![(1, node(wrap(6, bomb)))]);
    let told = Graph::read(&with_tensor(&bomb, &branch, true)).unwrap_err().to_string();
    assert!(told.contains("deep"), "{told}");
}

#[test]
fn a_small_network_runs_the_same_with_and_without_the_rewrite() {
    let slopes = make::floats("a", &[3, 1, 1], &[0.25, -0.5, 1.0], false);
    let node = Node { inputs: vec!["x", "a"], outputs: vec!["y"], name: "", operator: "PRelu", domain: "" };
    let bytes = make::model(13, &[1, 3, 16, 16], &[node], &[slopes]);
    let input = Tensor { shape: vec![1, 3, 16, 16], data: (0..768).map(|n| (n as f32 - 400.0) / 37.0).collect() };
    for settings in backends() {
        let mut outputs = Vec::new();
        for rewriting in [false, true] {
            let prepared = prepare("small", [1, 3, 16, 16], &bytes, rewriting).unwrap();
            assert_eq!(prepared.rewritten, usize::from(rewriting));
            outputs.push(open_prepared(&settings, &prepared).unwrap().run(&input).unwrap());
        }
        assert_eq!(outputs[0], outputs[1]);
        assert_eq!(outputs[0][0].data[0], 0.25 * input.data[0]);
    }
}

#[test]
fn an_input_of_another_shape_is_an_error_and_the_network_lives_on() {
    let bytes = make::relu(&[1, 3, 16, 16]);
    for settings in backends() {
        let mut network = open_prepared(&settings, &prepare("relu", [1, 3, 16, 16], &bytes, true).unwrap()).unwrap();
        assert_eq!(network.output_names(), ["y"]);
        for (shape, count) in [(vec![1, 3, 8, 8], 192), (vec![1, 3, 16, 16], 5), (vec![], 1)] {
            assert!(matches!(network.run(&Tensor { shape, data: vec![0.0; count] }), Err(InferenceError::Run { .. })));
        }
        let output = network.run(&Tensor { shape: vec![1, 3, 16, 16], data: vec![-2.0; 768] }).unwrap();
        assert!(output[0].data.iter().all(|value| *value == 0.0));
    }
}

#[test]
fn probe_tells_what_will_be_used() {
    for settings in backends() {
        let report = probe(&settings);
        let wanted = if settings.backend == BackendChoice::Ort { "ort/cpu" } else { "tract/cpu" };
        assert_eq!(report.provider.as_deref(), Some(wanted), "{report:?}");
        assert_eq!(report.library.is_some(), settings.backend == BackendChoice::Ort);
        assert!(report.version.starts_with(|c: char| c.is_ascii_digit()), "{report:?}");
        assert_eq!(report.reason, None);
    }
}

/// Every network of the manifest that lies in the shared folder.
fn real_networks() -> Vec<(ModelId, Model, PathBuf)> {
    let Some(folder) = shared("models") else { return Vec::new() };
    let manifest = Manifest::builtin().unwrap();
    manifest
        .models
        .into_iter()
        .filter(|(_, model)| folder.join(&model.file).is_file())
        .map(|(id, model)| (id, model, folder.clone()))
        .collect()
}

#[test]
fn the_rewrite_is_exact_on_the_real_networks() {
    let photos = photos();
    for (id, model, folder) in real_networks() {
        let bytes = read_pinned(&id, &model, &folder).unwrap();
        let shape = [1, 3, model.input.height as usize, model.input.width as usize];
        let [plain, rewritten] = [false, true].map(|rewriting| prepare(id.as_str(), shape, &bytes, rewriting).unwrap());
        let prelus = Graph::read(&bytes).unwrap().nodes.iter().filter(|node| node.operator == "PRelu").count();
        eprintln!("{id}: {} of {prelus} PRelu rewritten", rewritten.rewritten);
        if matches!(id.as_str(), "w600k-mbf-dequant" | "minifasnet-v2" | "minifasnet-v1se") {
            assert_eq!(rewritten.rewritten, prelus, "every slope of {id} is at most 1");
            assert!(prelus > 30);
        }
        if rewritten.rewritten == 0 {
            assert_eq!(plain.graph, rewritten.graph);
            continue;
        }
        for settings in backends() {
            let mut before = open_prepared(&settings, &plain).unwrap();
            let mut after = open_prepared(&settings, &rewritten).unwrap();
            for photo in &photos {
                let input = picture(&model, photo.as_deref());
                let difference = difference(&before.run(&input).unwrap(), &after.run(&input).unwrap());
                eprintln!("{id} on {}: {difference:e}", after.provider());
                assert!(difference <= REWRITE_TOLERANCE, "{id} on {}: {difference}", after.provider());
            }
        }
    }
}

#[test]
fn the_backends_agree_on_the_real_networks() {
    let [ort, tract] = backends().try_into().unwrap_or_else(|_| [Settings::default(), Settings::default()]);
    if ort.backend != BackendChoice::Ort {
        return missing("a second backend");
    }
    let photos = photos();
    for (id, model, folder) in real_networks() {
        let mut ort = open(&ort, &id, &model, &folder).unwrap();
        let mut tract = open(&tract, &id, &model, &folder).unwrap();
        assert_eq!(ort.output_names(), tract.output_names());
        for photo in &photos {
            let input = picture(&model, photo.as_deref());
            let difference = difference(&ort.run(&input).unwrap(), &tract.run(&input).unwrap());
            eprintln!("{id}: {difference:e}");
            assert!(difference <= BACKEND_TOLERANCE, "{id}: {difference}");
        }
    }
}

/// A template says by its model's id alone how the face before the network was prepared (`gallery/FORMAT.md`). So an id is bound to its
/// preparation for ever: whoever changes where the five points go, the size, the numbers or the channels' order gives a new id.
#[test]
fn an_embedders_id_is_bound_to_how_its_input_is_prepared() {
    const PINNED: [(&str, &str); 9] = [
        ("arcface-r100", "c1e815b39be73518ce075601601c61f935a1afa66a83916bdc2f14f7621b1aa2"),
        ("auraface-v1", "c1e815b39be73518ce075601601c61f935a1afa66a83916bdc2f14f7621b1aa2"),
        ("faceid-embedder", "d74029b6a3fe8d75b088d774dd3c5c3e0f97c5c776f6646b984b2c205719b6f0"),
        ("faceid-embedder-int8", "d74029b6a3fe8d75b088d774dd3c5c3e0f97c5c776f6646b984b2c205719b6f0"),
        ("mobilefacenet-foamliu", "25384ce73ab51f6fc6b30bdab5d256eecff8f52e91ad57955548428687c9921f"),
        ("retail-0095", "fc969ea2f1546402cb7b5c9109ad16253aa569991592f1e4b5f7f306afcea9ba"),
        ("sface", "8edbf5228b81514897b8d65e8479c4e406c92b75f698a18ac1ee381a12a9affb"),
        ("w600k-mbf", "c1e815b39be73518ce075601601c61f935a1afa66a83916bdc2f14f7621b1aa2"),
        ("w600k-mbf-dequant", "c1e815b39be73518ce075601601c61f935a1afa66a83916bdc2f14f7621b1aa2"),
    ];
    let manifest = Manifest::builtin().unwrap();
    let mut found = Vec::new();
    for (id, model) in &manifest.models {
        let Role::Embedder { dimension, template, .. } = &model.role else { continue };
        let Input { width, height, color, mean, deviation } = &model.input;
        let color = match color {
            ColorOrder::Rgb => "rgb",
            ColorOrder::Bgr => "bgr",
        };
        let numbers = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let bytes = [
            [width.to_le_bytes(), height.to_le_bytes()].concat(),
            color.as_bytes().to_vec(),
            numbers(mean),
            numbers(deviation),
            numbers(template.as_flattened()),
            u32::try_from(*dimension).unwrap().to_le_bytes().to_vec(),
        ];
        let hash: String = Sha256::digest(bytes.concat()).iter().map(|byte| format!("{byte:02x}")).collect();
        found.push((id.as_str().to_owned(), hash));
    }
    let pinned: Vec<_> = PINNED.iter().map(|(id, hash)| ((*id).to_owned(), (*hash).to_owned())).collect();
    assert_eq!(found, pinned, "another preparation needs another id; a new model is added here");
}

#[test]
fn a_file_that_is_not_what_the_manifest_says_of_its_8_bits_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plain = make::relu(&[1, 3, 16, 16]);
    let mut entry = own_model(folder.path(), &plain, 16);
    entry.int8 = true;
    assert!(refusal(&Settings::default(), &entry, folder.path()).contains("holds no QuantizeLinear"));
    let node = Node { inputs: vec!["x", "scale"], outputs: vec!["y"], name: "", operator: "DequantizeLinear", domain: "" };
    let scale = make::floats("scale", &[], &[0.5], true);
    let quantized = make::model(13, &[1, 3, 16, 16], &[node], &[scale]);
    let entry = own_model(folder.path(), &quantized, 16);
    assert!(refusal(&Settings::default(), &entry, folder.path()).contains("int8 = true"));
}

#[test]
fn a_pack_without_8_bits_says_so_and_one_with_them_takes_them() {
    let manifest = Manifest::builtin().unwrap();
    let error = manifest.pack_at("standard", Precision::Int8).unwrap_err().to_string();
    assert!(
        error.contains("`standard` has no INT8 networks") && error.contains("builtin") && error.contains("quantize.py"),
        "{error}"
    );
    for precision in [Precision::Fp32, Precision::Fp16] {
        assert_eq!(manifest.pack_at("standard", precision).unwrap(), *manifest.pack("standard").unwrap());
    }
    let pack = manifest.pack_at("builtin", Precision::Int8).unwrap();
    assert_eq!(pack.embedder, model("faceid-embedder-int8"));
    assert_eq!(pack.liveness, [model("faceid-liveness-int8")]);
    assert_eq!(pack.detector, model("faceid-detector"), "a role that is not named keeps its network");
}

/// How far the built-in INT8 networks may lie from their own in float on the fixed set, as 1 - cosine. The cards have what that means for faces.
const INT8_TOLERANCE: f64 = 0.02;

#[test]
fn the_built_in_int8_networks_are_near_their_float_ones_and_the_backends_agree_on_them() {
    let manifest = Manifest::builtin().unwrap();
    let opened = |settings: &Settings, id: &str| {
        open(settings, &model(id), manifest.model(&model(id)).unwrap(), Path::new("/nowhere")).unwrap()
    };
    let all = backends();
    for id in ["faceid-embedder", "faceid-liveness"] {
        let (small, inputs) = (format!("{id}-int8"), fixed_set(manifest.model(&model(id)).unwrap()));
        for settings in &all {
            let (mut eight, mut float) = (opened(settings, &small), opened(settings, id));
            let off = engine::largest_difference(&mut *eight, &mut *float, &inputs).unwrap();
            eprintln!("{small} on {}: {off:.1e} from float", eight.provider());
            assert!(off <= INT8_TOLERANCE, "{small} on {}: {off}", eight.provider());
        }
        // Two ways to add the same rounded numbers: what an engine's own way may do as well.
        let [one, other] = &all[..] else { continue };
        let off = engine::largest_difference(&mut *opened(one, &small), &mut *opened(other, &small), &inputs).unwrap();
        eprintln!("{small}: the backends lie {off:.1e} apart");
        assert!(off <= Settings::default().int8_parity, "{small}: {off}");
    }
}
