//! tract: pure Rust, always there, on the CPU. One thread: parallel work goes across cameras and stages.

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::{InferenceError, Network, Prepared, Tensor, check_shape, guarded};

/// The version that is built in; a test holds it against the lock file.
pub(super) const VERSION: &str = "0.23.9";

struct TractNetwork {
    model: String,
    shape: [usize; 4],
    plan: Arc<TypedRunnableModel>,
    outputs: Vec<String>,
    fallback: Option<String>,
}

/// Optimises the network for its one input shape; `fallback` is why another backend was not taken.
pub(super) fn open(prepared: &Prepared, fallback: Option<String>) -> Result<Box<dyn Network>, InferenceError> {
    let plan = guarded(|| plan(prepared).map_err(|error| format!("tract: {error:#}")))
        .map_err(|reason| InferenceError::BadModel { model: prepared.model.clone(), reason })?;
    Ok(Box::new(TractNetwork {
        model: prepared.model.clone(),
        shape: prepared.shape,
        plan,
        outputs: prepared.outputs.clone(),
        fallback,
    }))
}

fn plan(prepared: &Prepared) -> TractResult<Arc<TypedRunnableModel>> {
    // What the file says of inner and output shapes may name an open batch or size, which the one input shape then contradicts; tract
    // works them all out again.
    let reader = onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    let mut model = reader.model_for_read(&mut prepared.graph.as_slice())?;
    model.set_input_fact(0, f32::fact(prepared.shape).into())?;
    model.into_optimized()?.into_runnable()
}

impl Network for TractNetwork {
    fn run(&mut self, input: &Tensor) -> Result<Vec<Tensor>, InferenceError> {
        check_shape(&self.model, &self.shape, input)?;
        guarded(|| run(&self.plan, input).map_err(|error| format!("tract: {error:#}")))
            .map_err(|reason| InferenceError::Run { model: self.model.clone(), reason })
    }

    fn output_names(&self) -> &[String] {
        &self.outputs
    }

    fn provider(&self) -> &str {
        "tract/cpu"
    }

    fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}

fn run(plan: &Arc<TypedRunnableModel>, input: &Tensor) -> TractResult<Vec<Tensor>> {
    let input = tract_onnx::prelude::Tensor::from_shape(&input.shape, &input.data)?;
    let outputs = plan.run(tvec!(input.into()))?;
    let plain = outputs.iter().map(|output| {
        let floats = output.cast_to::<f32>()?;
        Ok(Tensor { shape: output.shape().to_vec(), data: floats.view().as_slice::<f32>()?.to_vec() })
    });
    plain.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_stated_version_is_the_locked_one() {
        let lock = include_str!("../../Cargo.lock");
        let entry = format!("name = \"tract-onnx\"\nversion = \"{}\"", super::VERSION);
        assert!(lock.contains(&entry), "tract.rs states {}, Cargo.lock has another", super::VERSION);
    }
}
