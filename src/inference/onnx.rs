//! The little that we read and write of ONNX files, on the protobuf wire format (onnx.proto3, IR versions 3 to 13). A network is
//! described and checked here before any backend sees it; hostile bytes give [`Malformed`], never a panic, and nothing is allocated
//! that the file's own length does not pay for.

use std::collections::{BTreeMap, BTreeSet};

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};
use thiserror::Error;

/// Field numbers of onnx.proto that are read or written.
pub(super) mod tag {
    pub(in super::super) const MODEL_GRAPH: u32 = 7;
    pub(in super::super) const MODEL_OPSET: u32 = 8;
    pub(in super::super) const OPSET_DOMAIN: u32 = 1;
    pub(in super::super) const OPSET_VERSION: u32 = 2;
    pub(in super::super) const GRAPH_NODE: u32 = 1;
    pub(in super::super) const GRAPH_INITIALIZER: u32 = 5;
    pub(in super::super) const GRAPH_INPUT: u32 = 11;
    pub(in super::super) const GRAPH_OUTPUT: u32 = 12;
    pub(in super::super) const NODE_INPUT: u32 = 1;
    pub(in super::super) const NODE_OUTPUT: u32 = 2;
    pub(in super::super) const NODE_NAME: u32 = 3;
    pub(in super::super) const NODE_OP: u32 = 4;
    pub(in super::super) const NODE_DOMAIN: u32 = 7;
    pub(in super::super) const TENSOR_DIMS: u32 = 1;
    pub(in super::super) const TENSOR_TYPE: u32 = 2;
    pub(in super::super) const TENSOR_FLOATS: u32 = 4;
    pub(in super::super) const TENSOR_NAME: u32 = 8;
    pub(in super::super) const TENSOR_RAW: u32 = 9;
    pub(in super::super) const TENSOR_EXTERNAL: u32 = 13;
    pub(in super::super) const TENSOR_LOCATION: u32 = 14;
    pub(in super::super) const VALUE_NAME: u32 = 1;
    pub(in super::super) const VALUE_TYPE: u32 = 2;
    pub(in super::super) const TYPE_TENSOR: u32 = 1;
    pub(in super::super) const TENSOR_TYPE_ELEMENT: u32 = 1;
    pub(in super::super) const TENSOR_TYPE_SHAPE: u32 = 2;
    pub(in super::super) const SHAPE_DIM: u32 = 1;
    pub(in super::super) const DIM_VALUE: u32 = 1;
}

/// `TensorProto.DataType.FLOAT`.
pub(super) const FLOAT: u64 = 1;

/// Why bytes are no network that we read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl From<prost::DecodeError> for Malformed {
    fn from(error: prost::DecodeError) -> Self {
        Self(format!("no whole ONNX file ({error})"))
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// An integer.
    Varint(u64),
    /// A text, a message or packed numbers.
    Bytes(&'a [u8]),
    /// A 32-bit number's bits.
    Fixed32(u32),
    /// Anything else, walked over.
    Other,
}

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// Its number.
    pub(super) tag: u32,
    /// The whole field with its key, to be copied as it is.
    pub(super) raw: &'a [u8],
    /// Its content.
    pub(super) value: Value<'a>,
}

/// Walks the fields of one message; ends after the first error.
pub(super) struct Fields<'a>(&'a [u8]);

/// The fields of `message` in the file's order.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let start = std::mem::take(&mut self.0);
        let field = read_field(start);
        if let Ok(field) = &field {
            self.0 = &start[field.raw.len()..];
        }
        Some(field)
    }
}

fn read_field(start: &[u8]) -> Result<Field<'_>, Malformed> {
    let mut rest = start;
    let (tag, kind) = decode_key(&mut rest)?;
    let value = match kind {
        WireType::Varint => Value::Varint(decode_varint(&mut rest)?),
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
            let Some((content, after)) = rest.split_at_checked(length) else {
                return Err(Malformed(format!(
                    "no whole ONNX file (field {tag} is {length} bytes long and {} are left)",
                    rest.len()
                )));
            };
            rest = after;
            Value::Bytes(content)
        }
        WireType::ThirtyTwoBit => match rest.split_first_chunk::<4>() {
            Some((number, after)) => {
                rest = after;
                Value::Fixed32(u32::from_le_bytes(*number))
            }
            None => return Err(Malformed(format!("no whole ONNX file (field {tag} is cut off)"))),
        },
        WireType::SixtyFourBit | WireType::StartGroup | WireType::EndGroup => {
            // Groups nest; the context bounds how deep.
            skip_field(kind, tag, &mut rest, DecodeContext::default())?;
            Value::Other
        }
    };
    Ok(Field { tag, raw: &start[..start.len() - rest.len()], value })
}

fn text<'a>(value: Value<'a>) -> Result<&'a str, Malformed> {
    match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| Malformed("no ONNX file (a name is not UTF-8)".into())),
        _ => Err(Malformed("no ONNX file (a name is no text)".into())),
    }
}

fn message<'a>(value: Value<'a>) -> Result<&'a [u8], Malformed> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(Malformed("no ONNX file (a message is missing)".into())),
    }
}

/// One operation.
#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) name: &'a str,
    pub(super) operator: &'a str,
    pub(super) domain: &'a str,
}

impl<'a> Node<'a> {
    /// Reads a `NodeProto`.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut node = Self::default();
        for field in fields(bytes) {
            let field = field?;
            match field.tag {
                tag::NODE_INPUT => node.inputs.push(text(field.value)?),
                tag::NODE_OUTPUT => node.outputs.push(text(field.value)?),
                tag::NODE_NAME => node.name = text(field.value)?,
                tag::NODE_OP => node.operator = text(field.value)?,
                tag::NODE_DOMAIN => node.domain = text(field.value)?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// Writes a `NodeProto` of the standard domain without attributes.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for input in &self.inputs {
            put_bytes(tag::NODE_INPUT, input.as_bytes(), &mut out);
        }
        for output in &self.outputs {
            put_bytes(tag::NODE_OUTPUT, output.as_bytes(), &mut out);
        }
        if !self.name.is_empty() {
            put_bytes(tag::NODE_NAME, self.name.as_bytes(), &mut out);
        }
        put_bytes(tag::NODE_OP, self.operator.as_bytes(), &mut out);
        out
    }
}

/// What may hold a tensor, however deep: each kind of message with its fields that lead on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Training,
    Sparse,
    Tensor,
}

/// How deep messages may lie in one another. A network's own tensors are three deep; each branch of an `If` adds three.
const MAX_DEPTH: usize = 32;

impl Part {
    /// What field `tag` of this holds, by onnx.proto.
    fn field(self, tag: u32) -> Option<Self> {
        match (self, tag) {
            (Part::Model, 7) | (Part::Attribute, 6 | 11) | (Part::Training, 1 | 2) => Some(Part::Graph),
            (Part::Model, 20) => Some(Part::Training),
            (Part::Model, 25) => Some(Part::Function),
            (Part::Graph, 1) | (Part::Function, 7) => Some(Part::Node),
            (Part::Node, 5) | (Part::Function, 11) => Some(Part::Attribute),
            (Part::Graph, 15) | (Part::Attribute, 22 | 23) => Some(Part::Sparse),
            (Part::Graph, 5) | (Part::Attribute, 5 | 10) | (Part::Sparse, 1 | 2) => Some(Part::Tensor),
            _ => None,
        }
    }

    /// Refuses weights in another file, which would be read from wherever the file says, and what lies deeper than any network's.
    fn check(self, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed(format!("no ONNX network that we read (parts of it lie more than {MAX_DEPTH} deep)")));
        }
        for field in fields(bytes) {
            let field = field?;
            if self == Part::Tensor
                && matches!((field.tag, field.value), (tag::TENSOR_EXTERNAL, _) | (tag::TENSOR_LOCATION, Value::Varint(1)))
            {
                return Err(Malformed("it keeps weights in another file; use a network that is one file".into()));
            }
            if let (Some(part), Value::Bytes(content)) = (self.field(field.tag), field.value) {
                part.check(content, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Appends one text, message or packed field.
pub(super) fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends one integer field.
pub(super) fn put_varint(tag: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(value, out);
}

/// A constant of the graph.
#[derive(Debug)]
pub(super) struct Initializer<'a> {
    pub(super) name: &'a str,
    kind: u64,
    elements: u64,
    raw: Option<&'a [u8]>,
    floats: Vec<f32>,
}

/// More numbers than this are no slopes of a PReLU; their text form is not read.
const MAX_SMALL_ELEMENTS: u64 = 65_536;

impl<'a> Initializer<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut this = Self { name: "", kind: 0, elements: 1, raw: None, floats: Vec::new() };
        let mut dim = |value: u64| this.elements = this.elements.saturating_mul(value);
        for field in fields(bytes) {
            let field = field?;
            match (field.tag, field.value) {
                (tag::TENSOR_DIMS, Value::Varint(value)) => dim(value),
                (tag::TENSOR_DIMS, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        dim(decode_varint(&mut packed)?);
                    }
                }
                (tag::TENSOR_TYPE, Value::Varint(value)) => this.kind = value,
                (tag::TENSOR_NAME, value) => this.name = text(value)?,
                (tag::TENSOR_RAW, Value::Bytes(raw)) => this.raw = Some(raw),
                (tag::TENSOR_FLOATS, Value::Bytes(packed)) if packed.len() as u64 <= 4 * MAX_SMALL_ELEMENTS => {
                    this.floats.extend(packed.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
                }
                (tag::TENSOR_FLOATS, Value::Fixed32(bits)) => this.floats.push(f32::from_bits(bits)),
                _ => {}
            }
        }
        Ok(this)
    }

    /// The numbers of a small float constant, `None` for any other.
    pub(super) fn small_floats(&self) -> Option<Vec<f32>> {
        if self.kind != FLOAT || self.elements > MAX_SMALL_ELEMENTS {
            return None;
        }
        let numbers: Vec<f32> = match self.raw {
            Some(raw) if raw.len() % 4 == 0 => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Some(_) => return None,
            None => self.floats.clone(),
        };
        (numbers.len() as u64 == self.elements).then_some(numbers)
    }
}

/// A tensor that goes in: its name and its dimensions, `None` where the file leaves one open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: String,
    /// Element type, as `TensorProto.DataType`.
    pub(super) kind: u64,
    /// `None` when the file states no shape at all.
    pub(super) shape: Option<Vec<Option<u64>>>,
}

/// What a file says of itself.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    /// The version of the standard operator set.
    pub(super) opset: u64,
    /// The graph's bytes.
    pub(super) bytes: &'a [u8],
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) initializers: BTreeMap<&'a str, Initializer<'a>>,
    /// What must be given to a run: the inputs that are no constants.
    pub(super) inputs: Vec<Port>,
    /// The outputs' names, in the file's order.
    pub(super) outputs: Vec<String>,
}

impl<'a> Graph<'a> {
    /// Reads a `ModelProto`.
    pub(super) fn read(model: &'a [u8]) -> Result<Self, Malformed> {
        Part::Model.check(model, 0)?;
        let mut opset = 0;
        let mut graph = None;
        for field in fields(model) {
            let field = field?;
            match field.tag {
                tag::MODEL_GRAPH if graph.is_some() => return Err(Malformed("no ONNX file that we read (two graphs)".into())),
                tag::MODEL_GRAPH => graph = Some(message(field.value)?),
                tag::MODEL_OPSET => opset = opset.max(standard_opset(message(field.value)?)?),
                _ => {}
            }
        }
        let bytes = graph.ok_or_else(|| Malformed("no ONNX file (no graph in it)".into()))?;
        let mut this =
            Self { opset, bytes, nodes: Vec::new(), initializers: BTreeMap::new(), inputs: Vec::new(), outputs: Vec::new() };
        for field in fields(bytes) {
            let field = field?;
            match field.tag {
                tag::GRAPH_NODE => this.nodes.push(Node::read(message(field.value)?)?),
                tag::GRAPH_INITIALIZER => {
                    let initializer = Initializer::read(message(field.value)?)?;
                    this.initializers.insert(initializer.name, initializer);
                }
                tag::GRAPH_INPUT => this.inputs.push(read_port(message(field.value)?)?),
                tag::GRAPH_OUTPUT => this.outputs.push(read_port(message(field.value)?)?.name),
                _ => {}
            }
        }
        if this.nodes.is_empty() || this.outputs.is_empty() {
            return Err(Malformed("no ONNX network (no operation or no output in it)".into()));
        }
        // Up to IR version 3 every constant is listed among the inputs as well.
        this.inputs.retain(|port| !this.initializers.contains_key(port.name.as_str()));
        Ok(this)
    }

    /// Every tensor name that is taken.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        let nodes = self.nodes.iter().flat_map(|node| node.inputs.iter().chain(&node.outputs).chain([&node.name]).copied());
        let ports = self.inputs.iter().map(|port| port.name.as_str());
        nodes.chain(ports).chain(self.initializers.keys().copied()).collect()
    }

    /// Whether the network takes one float tensor of `shape`; the error says what it takes instead.
    pub(super) fn check_input(&self, shape: &[usize; 4]) -> Result<(), Malformed> {
        let wanted = shape.map(|n| n.to_string()).join("×");
        let [port] = self.inputs.as_slice() else {
            return Err(Malformed(format!(
                "this file is another network: it takes {} inputs and the manifest says one",
                self.inputs.len()
            )));
        };
        let fits = |dims: &Vec<Option<u64>>| {
            dims.len() == shape.len() && dims.iter().zip(shape).all(|(dim, wanted)| dim.is_none_or(|dim| dim == *wanted as u64))
        };
        if port.kind == FLOAT && port.shape.as_ref().is_none_or(fits) {
            return Ok(());
        }
        let dims = port.shape.iter().flatten().map(|dim| dim.map_or("?".to_string(), |dim| dim.to_string()));
        let found = dims.collect::<Vec<_>>().join("×");
        let kind = if port.kind == FLOAT { "" } else { " of another type than float" };
        let name = port.name.escape_default();
        Err(Malformed(format!("this file is another network: its input `{name}` is {found}{kind} and the manifest says {wanted}")))
    }
}

fn standard_opset(bytes: &[u8]) -> Result<u64, Malformed> {
    let (mut domain, mut version) = ("", 0);
    for field in fields(bytes) {
        let field = field?;
        match (field.tag, field.value) {
            (tag::OPSET_DOMAIN, value) => domain = text(value)?,
            (tag::OPSET_VERSION, Value::Varint(value)) => version = value,
            _ => {}
        }
    }
    Ok(if domain.is_empty() || domain == "ai.onnx" { version } else { 0 })
}

fn read_port(bytes: &[u8]) -> Result<Port, Malformed> {
    let mut port = Port { name: String::new(), kind: 0, shape: None };
    for field in fields(bytes) {
        let field = field?;
        match field.tag {
            tag::VALUE_NAME => port.name = text(field.value)?.to_owned(),
            tag::VALUE_TYPE => {
                for kind in fields(message(field.value)?) {
                    let kind = kind?;
                    if kind.tag == tag::TYPE_TENSOR {
                        read_tensor_type(message(kind.value)?, &mut port)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(port)
}

fn read_tensor_type(bytes: &[u8], port: &mut Port) -> Result<(), Malformed> {
    for field in fields(bytes) {
        let field = field?;
        match (field.tag, field.value) {
            (tag::TENSOR_TYPE_ELEMENT, Value::Varint(kind)) => port.kind = kind,
            (tag::TENSOR_TYPE_SHAPE, value) => {
                let mut dims = Vec::new();
                for dim in fields(message(value)?) {
                    let dim = dim?;
                    if dim.tag == tag::SHAPE_DIM {
                        dims.push(read_dim(message(dim.value)?)?);
                    }
                }
                port.shape = Some(dims);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A dimension that is named, missing or not positive (some exporters write -1) is open.
fn read_dim(bytes: &[u8]) -> Result<Option<u64>, Malformed> {
    let mut dim = None;
    for field in fields(bytes) {
        if let Field { tag: tag::DIM_VALUE, value: Value::Varint(value), .. } = field? {
            dim = i64::try_from(value).ok().filter(|value| *value > 0).map(i64::unsigned_abs);
        }
    }
    Ok(dim)
}

/// Writes whole small networks: what `probe` runs to see whether a provider works, and what tests are made of.
pub(super) mod make {
    use super::{FLOAT, Node, put_bytes, put_varint, tag};

    /// A `ValueInfoProto` of a float tensor.
    fn port(name: &str, shape: &[u64]) -> Vec<u8> {
        let mut dims = Vec::new();
        for size in shape {
            let mut dim = Vec::new();
            put_varint(tag::DIM_VALUE, *size, &mut dim);
            put_bytes(tag::SHAPE_DIM, &dim, &mut dims);
        }
        let mut tensor = Vec::new();
        put_varint(tag::TENSOR_TYPE_ELEMENT, FLOAT, &mut tensor);
        put_bytes(tag::TENSOR_TYPE_SHAPE, &dims, &mut tensor);
        let mut kind = Vec::new();
        put_bytes(tag::TYPE_TENSOR, &tensor, &mut kind);
        let mut out = Vec::new();
        put_bytes(tag::VALUE_NAME, name.as_bytes(), &mut out);
        put_bytes(tag::VALUE_TYPE, &kind, &mut out);
        out
    }

    /// A `TensorProto` of floats (tests only); `raw` says in which of the two forms the numbers are written.
    #[cfg(test)]
    pub(in super::super) fn floats(name: &str, shape: &[u64], numbers: &[f32], raw: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for size in shape {
            put_varint(tag::TENSOR_DIMS, *size, &mut out);
        }
        put_varint(tag::TENSOR_TYPE, FLOAT, &mut out);
        put_bytes(tag::TENSOR_NAME, name.as_bytes(), &mut out);
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        put_bytes(if raw { tag::TENSOR_RAW } else { tag::TENSOR_FLOATS }, &bytes, &mut out);
        out
    }

    /// A `ModelProto` (IR 8) from `x` to `y`, both of `shape`.
    pub(in super::super) fn model(opset: u64, shape: &[u64], nodes: &[Node<'_>], initializers: &[Vec<u8>]) -> Vec<u8> {
        let mut graph = Vec::new();
        for node in nodes {
            put_bytes(tag::GRAPH_NODE, &node.write(), &mut graph);
        }
        put_bytes(2, b"small", &mut graph);
        for initializer in initializers {
            put_bytes(tag::GRAPH_INITIALIZER, initializer, &mut graph);
        }
        put_bytes(tag::GRAPH_INPUT, &port("x", shape), &mut graph);
        put_bytes(tag::GRAPH_OUTPUT, &port("y", shape), &mut graph);
        let mut set = Vec::new();
        put_varint(tag::OPSET_VERSION, opset, &mut set);
        let mut out = Vec::new();
        put_varint(1, 8, &mut out);
        put_bytes(tag::MODEL_GRAPH, &graph, &mut out);
        put_bytes(tag::MODEL_OPSET, &set, &mut out);
        out
    }

    /// One Relu.
    pub(in super::super) fn relu(shape: &[u64]) -> Vec<u8> {
        let node = Node { inputs: vec!["x"], outputs: vec!["y"], name: "relu", operator: "Relu", domain: "" };
        model(13, shape, &[node], &[])
    }
}
