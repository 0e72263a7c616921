//! The one change that is made to a network before a backend sees it: `PRelu(x, a)` becomes `Max(x, a·x)` where every slope `a` is
//! finite and at most 1. ONNX Runtime never fuses PRelu on a CPU and changes layouts around it, which is half of a MobileFaceNet's
//! time; Mul and Max are fused and vectorised by both backends.
//!
//! Why it is exact: for x ≥ 0, a ≤ 1 gives a·x ≤ x, so the maximum is x; for x < 0 it gives a·x ≥ x, so the maximum is a·x. These are
//! PRelu's two cases, with the same one multiplication. (For the sign of a zero, and an infinite x with a slope of 0, the forms may
//! differ; neither is an activation of a sane network.) Everything else in the file is copied byte by byte.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::onnx::{Field, Graph, Malformed, Node, Value, fields, put_bytes, tag};

/// Mul, Max and PRelu broadcast in one and the same way from this version of the operator set on.
const FIRST_OPSET: u64 = 8;

/// A file after the rewrite.
#[derive(Debug)]
pub(super) struct Rewritten<'a> {
    /// The file; the very same bytes when nothing was to be done.
    pub(super) bytes: Cow<'a, [u8]>,
    /// How many PRelus were replaced.
    pub(super) replaced: usize,
}

/// Replaces what can be replaced exactly in `model`, which `graph` was read from.
pub(super) fn rewrite<'a>(model: &'a [u8], graph: &Graph<'a>) -> Result<Rewritten<'a>, Malformed> {
    if graph.opset < FIRST_OPSET || !graph.nodes.iter().any(|node| is_exact(node, graph)) {
        return Ok(Rewritten { bytes: Cow::Borrowed(model), replaced: 0 });
    }
    let taken = graph.names();
    let mut replaced = 0;
    let mut nodes = graph.nodes.iter();
    let mut inner = Vec::with_capacity(graph.bytes.len());
    for field in fields(graph.bytes) {
        let field = field?;
        // The nodes were read from these very fields, in this order.
        let node = if field.tag == tag::GRAPH_NODE { nodes.next() } else { None };
        match node {
            Some(node) if is_exact(node, graph) => {
                let product = free_name(&taken, replaced);
                for part in parts(node, &product) {
                    put_bytes(tag::GRAPH_NODE, &part.write(), &mut inner);
                }
                replaced += 1;
            }
            _ => inner.extend_from_slice(field.raw),
        }
    }
    let mut bytes = Vec::with_capacity(model.len() + inner.len() - graph.bytes.len());
    for field in fields(model) {
        match field? {
            Field { tag: tag::MODEL_GRAPH, value: Value::Bytes(_), .. } => put_bytes(tag::MODEL_GRAPH, &inner, &mut bytes),
            other => bytes.extend_from_slice(other.raw),
        }
    }
    Ok(Rewritten { bytes: Cow::Owned(bytes), replaced })
}

/// A standard PRelu with constant slopes, each finite and at most 1.
fn is_exact(node: &Node<'_>, graph: &Graph<'_>) -> bool {
    if node.operator != "PRelu" || !(node.domain.is_empty() || node.domain == "ai.onnx") {
        return false;
    }
    let ([_, slope], [_]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return false };
    let slopes = graph.initializers.get(slope).and_then(|initializer| initializer.small_floats());
    slopes.is_some_and(|slopes| slopes.iter().all(|slope| slope.is_finite() && *slope <= 1.0))
}

fn parts<'n>(node: &Node<'n>, product: &'n str) -> [Node<'n>; 2] {
    let (x, slope) = (node.inputs[0], node.inputs[1]);
    [
        Node { inputs: vec![x, slope], outputs: vec![product], name: product, operator: "Mul", domain: "" },
        Node { inputs: vec![x, product], outputs: node.outputs.clone(), name: node.name, operator: "Max", domain: "" },
    ]
}

fn free_name(taken: &BTreeSet<&str>, number: usize) -> String {
    let mut name = format!("faceid_slope_{number}");
    while taken.contains(name.as_str()) {
        name.push('_');
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::onnx::make;
    use super::*;

    fn prelu<'a>(slope: &'a str) -> Node<'a> {
        Node { inputs: vec!["x", slope], outputs: vec!["y"], name: "act", operator: "PRelu", domain: "" }
    }

    fn network(slopes: &[f32], raw: bool) -> Vec<u8> {
        let initializer = make::floats("a", &[slopes.len() as u64, 1, 1], slopes, raw);
        make::model(13, &[1, slopes.len() as u64, 2, 2], &[prelu("a")], &[initializer])
    }

    fn operators(model: &[u8]) -> Vec<String> {
        Graph::read(model).unwrap().nodes.iter().map(|node| node.operator.to_owned()).collect()
    }

    fn replaced(model: &[u8]) -> usize {
        rewrite(model, &Graph::read(model).unwrap()).unwrap().replaced
    }

    #[test]
    fn slopes_for_which_it_would_not_be_exact_are_left_alone() {
        for slope in [1.000_001, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(replaced(&network(&[0.25, slope], true)), 0, "{slope}");
        }
    }

    #[test]
    fn slopes_that_are_no_constant_or_of_an_old_operator_set_are_left_alone() {
        assert_eq!(replaced(&make::model(13, &[1, 1, 2, 2], &[prelu("x")], &[])), 0);
        let slope = make::floats("a", &[1], &[0.5], true);
        assert_eq!(replaced(&make::model(7, &[1, 1, 2, 2], &[prelu("a")], std::slice::from_ref(&slope))), 0);
        let short = make::floats("a", &[2, 1, 1], &[0.5], true);
        assert_eq!(replaced(&make::model(13, &[1, 2, 2, 2], &[prelu("a")], &[short])), 0, "fewer numbers than its shape says");
    }

    #[test]
    fn a_network_without_prelu_keeps_its_bytes() {
        let model = make::relu(&[1, 3, 4, 4]);
        let rewritten = rewrite(&model, &Graph::read(&model).unwrap()).unwrap();
        assert!(matches!(rewritten.bytes, Cow::Borrowed(bytes) if bytes == model.as_slice()));
    }

    #[test]
    fn either_form_of_the_numbers_is_understood() {
        for raw in [true, false] {
            let model = network(&[0.25, -0.5, 1.0], raw);
            let rewritten = rewrite(&model, &Graph::read(&model).unwrap()).unwrap();
            assert_eq!(rewritten.replaced, 1);
            assert_eq!(operators(&rewritten.bytes), ["Mul", "Max"]);
            assert_eq!(replaced(&rewritten.bytes), 0, "a second pass finds nothing");
        }
    }

    #[test]
    fn new_names_do_not_meet_taken_ones() {
        let nodes = [
            Node { inputs: vec!["x"], outputs: vec!["faceid_slope_0"], name: "", operator: "Relu", domain: "" },
            Node { inputs: vec!["faceid_slope_0", "a"], outputs: vec!["y"], name: "", operator: "PRelu", domain: "" },
        ];
        let model = make::model(13, &[1, 1, 2, 2], &nodes, &[make::floats("a", &[1], &[0.5], true)]);
        let rewritten = rewrite(&model, &Graph::read(&model).unwrap()).unwrap();
        let graph = Graph::read(&rewritten.bytes).unwrap();
        let mut outputs: Vec<_> = graph.nodes.iter().flat_map(|node| node.outputs.clone()).collect();
        outputs.sort_unstable();
        outputs.dedup();
        assert_eq!(outputs.len(), 3);
    }

    #[test]
    fn every_truncation_is_an_error_or_a_readable_rest() {
        let model = network(&[0.25, 0.5], true);
        for end in 0..model.len() {
            if let Ok(graph) = Graph::read(&model[..end]) {
                rewrite(&model[..end], &graph).unwrap();
            }
        }
        assert!(Graph::read(b"this is a text file, no network\n").is_err());
        assert!(Graph::read(b"").is_err());
    }

    #[test]
    fn groups_nested_without_end_are_an_error() {
        assert!(Graph::read(&[0x0b; 100_000]).is_err());
    }

    proptest! {
        #[test]
        fn mutated_bytes_never_panic(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
            cut in any::<prop::sample::Index>(),
            truncate in any::<bool>(),
        ) {
            let mut model = network(&[0.25, -0.5, 1.0], false);
            for (index, byte) in changes {
                let at = index.index(model.len());
                model[at] = byte;
            }
            if truncate {
                model.truncate(cut.index(model.len()));
            }
            if let Ok(graph) = Graph::read(&model) {
                let _ = graph.check_input(&[1, 3, 2, 2]);
                let rewritten = rewrite(&model, &graph).unwrap();
                prop_assert!(Graph::read(&rewritten.bytes).is_ok());
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(graph) = Graph::read(&bytes) {
                let _ = rewrite(&bytes, &graph);
            }
        }
    }
}
