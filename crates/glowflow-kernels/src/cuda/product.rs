//! Matrix products with fused epilogues, by cuBLASLt.
//!
//! Matrices are row-major here and column-major in the library, so every product is passed transposed: the
//! library's left operand is the right one here. The library's heuristics choose an algorithm once per shape,
//! which is then reused: equal shapes give equal bits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use cudarc::cublaslt::sys::{
    self, cublasComputeType_t as Compute, cublasLtEpilogue_t as LtEpilogue,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreferenceAttributes_t as Preference,
    cublasLtMatrixLayoutAttribute_t as LayoutAttribute, cublasStatus_t as Status, cudaDataType_t as DataType,
};

use super::driver::{Context, Stream};
use crate::device::DeviceError;

/// Temporary memory available to a product: cuBLAS's recommendation for Hopper.
pub const WORKSPACE: usize = 32 << 20;

/// Element type of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    F32,
    Bf16,
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::CUDA_R_32F,
            Self::Bf16 => DataType::CUDA_R_16BF,
        }
    }
}

/// One of the three products of a layer `Y = X·Wᵀ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `[rows, outputs] = X [rows, inputs] · Wᵀ`, W `[outputs, inputs]`: the layer.
    Forward,
    /// `[rows, inputs] = dY [rows, outputs] · W`: the input gradient.
    ByInput,
    /// `[outputs, inputs] = dYᵀ · X`: the weight gradient.
    ByWeight,
}

/// The epilogue, applied to sums before they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    Nothing,
    /// Adds a bias per column.
    Bias,
    /// Adds the bias, then applies a ReLU.
    BiasRelu,
}

impl Epilogue {
    fn raw(self) -> LtEpilogue {
        match self {
            Self::Nothing => LtEpilogue::CUBLASLT_EPILOGUE_DEFAULT,
            Self::Bias => LtEpilogue::CUBLASLT_EPILOGUE_BIAS,
            Self::BiasRelu => LtEpilogue::CUBLASLT_EPILOGUE_RELU_BIAS,
        }
    }
}

/// A product's shape: everything that its algorithm depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub kind: Kind,
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Leading dimension of X (or the matrix in its place), in elements; likewise Y, W.
    pub x_stride: usize,
    pub y_stride: usize,
    pub w_stride: usize,
    /// Element type of both operands.
    pub operands: Element,
    /// Element type of the result.
    pub result: Element,
    /// True if 32-bit operands may be rounded to TF32 (19 bits).
    pub tf32: bool,
    pub epilogue: Epilogue,
    /// True if the result is accumulated.
    pub accumulate: bool,
    /// True if all matrices start at multiples of 16 bytes.
    pub aligned: bool,
    /// Several products of this shape, if any.
    pub batch: Option<Batch>,
}

/// Several products of one shape: elements between consecutive X, Y and W.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    pub count: usize,
    pub x: usize,
    pub y: usize,
    pub w: usize,
}

/// The operands' addresses, in the order of [`Kind`]'s formulas: `left · right → result`.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    pub left: u64,
    pub right: u64,
    pub result: u64,
    /// The bias; 0 if the epilogue has none.
    pub bias: u64,
}

/// Addresses of a product without bias.
pub fn operands(left: u64, right: u64, result: u64) -> Operands {
    Operands { left, right, result, bias: 0 }
}

/// A product that is ready to run.
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    /// In the library's order: A, B and D.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt on one GPU.
pub struct Products {
    context: Arc<Context>,
    handle: sys::cublasLtHandle_t,
    /// `None` for products that the library does not support. Locked during a call, which modifies the plan's
    /// pointers.
    plans: Mutex<HashMap<Product, Option<Plan>>>,
}

// SAFETY: the library's handles may be used from any thread, and plans are modified only under their lock.
#[allow(unsafe_code)]
unsafe impl Send for Products {}
#[allow(unsafe_code)]
unsafe impl Sync for Products {}

fn pointer<T>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

impl Products {
    #[allow(unsafe_code)]
    pub fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        context.enter()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the out-pointer is to a live variable.
        let status = unsafe { sys::cublasLtCreate(&mut handle) };
        let products = Self { context: Arc::clone(context), handle, plans: Mutex::default() };
        products.check(status, "starting cuBLASLt")?;
        Ok(products)
    }

    fn check(&self, status: Status, what: &str) -> Result<(), DeviceError> {
        match status {
            Status::CUBLAS_STATUS_SUCCESS => Ok(()),
            status => Err(DeviceError::Failed {
                device: self.context.name.clone(),
                reason: format!("{what}: {status:?}"),
            }),
        }
    }

    fn plan<'a>(
        &self,
        plans: &'a mut HashMap<Product, Option<Plan>>,
        product: Product,
    ) -> Result<Option<&'a Plan>, DeviceError> {
        Ok(match plans.entry(product) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.choose(product)?),
        }
        .as_ref())
    }

    /// Launches the product.
    #[allow(unsafe_code)]
    pub fn run(
        &self,
        stream: &Stream,
        workspace: u64,
        product: Product,
        operands: Operands,
    ) -> Result<(), DeviceError> {
        if product.rows == 0 {
            return Ok(());
        }
        self.context.enter()?;
        let mut plans = self.plans.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(plan) = self.plan(&mut plans, product)? else {
            return Err(DeviceError::Failed {
                device: self.context.name.clone(),
                reason: format!("cuBLASLt does not support {product:?}"),
            });
        };
        let set = |attribute, address: &u64| {
            // SAFETY: these attributes are pointers, which have the size of an address.
            let status = unsafe {
                sys::cublasLtMatmulDescSetAttribute(plan.description, attribute, pointer(address), 8)
            };
            self.check(status, "describing a product")
        };
        if product.epilogue != Epilogue::Nothing {
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands.bias)?;
        }
        let (one, beta) = (1.0f32, if product.accumulate { 1.0f32 } else { 0.0 });
        let [a, b, d] = plan.layouts;
        let result = operands.result as *mut c_void;
        // SAFETY: the addresses are of matrices with the shapes that the plan was made for, which the caller
        // guarantees; plan and handle are live; the workspace has `WORKSPACE` bytes.
        let status = unsafe {
            sys::cublasLtMatmul(
                self.handle,
                plan.description,
                pointer(&one),
                operands.right as *const c_void,
                a,
                operands.left as *const c_void,
                b,
                pointer(&beta),
                result,
                d,
                result,
                d,
                &plan.algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                stream.raw.cast(),
            )
        };
        self.check(status, "a product")
    }

    /// Describes a product to the library and lets it choose an algorithm.
    #[allow(unsafe_code)]
    fn choose(&self, product: Product) -> Result<Option<Plan>, DeviceError> {
        let Product { kind, rows, inputs, outputs, x_stride, y_stride, w_stride, .. } = product;
        const PLAIN: i32 = 0;
        const TRANSPOSED: i32 = 1;
        // Columns of the library's matrices are rows here. The library's A is the right operand, its B the
        // left one.
        let (a, b, d, [a_is, b_is]) = match kind {
            Kind::Forward => (
                (inputs, outputs, w_stride),
                (inputs, rows, x_stride),
                (outputs, rows, y_stride),
                [TRANSPOSED, PLAIN],
            ),
            Kind::ByInput => (
                (inputs, outputs, w_stride),
                (outputs, rows, y_stride),
                (inputs, rows, x_stride),
                [PLAIN, PLAIN],
            ),
            Kind::ByWeight => (
                (inputs, rows, x_stride),
                (outputs, rows, y_stride),
                (inputs, outputs, w_stride),
                [PLAIN, TRANSPOSED],
            ),
        };
        let compute =
            if product.tf32 { Compute::CUBLAS_COMPUTE_32F_FAST_TF32 } else { Compute::CUBLAS_COMPUTE_32F };
        let mut plan = Plan {
            description: std::ptr::null_mut(),
            layouts: [std::ptr::null_mut(); 3],
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        // SAFETY: here and below, out-pointers are to live variables, and attributes have the documented
        // sizes.
        let status =
            unsafe { sys::cublasLtMatmulDescCreate(&mut plan.description, compute, DataType::CUDA_R_32F) };
        self.check(status, "describing a product")?;
        let set = |attribute, value: *const c_void, size| {
            let status =
                unsafe { sys::cublasLtMatmulDescSetAttribute(plan.description, attribute, value, size) };
            self.check(status, "describing a product")
        };
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, pointer(&a_is), 4)?;
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, pointer(&b_is), 4)?;
        let epilogue = product.epilogue.raw() as u32;
        set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, pointer(&epilogue), 4)?;
        // The actual pointers are set for each product. Here they only declare the alignment: a bias is a
        // block of memory.
        let somewhere = 256u64;
        if product.epilogue != Epilogue::Nothing {
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, pointer(&somewhere), 8)?;
        }
        let (operands, result) = (product.operands.data_type(), product.result.data_type());
        for (layout, (kind, (rows, columns, stride))) in
            plan.layouts.iter_mut().zip([(operands, a), (operands, b), (result, d)])
        {
            let status = unsafe {
                sys::cublasLtMatrixLayoutCreate(layout, kind, rows as u64, columns as u64, stride as i64)
            };
            self.check(status, "describing a matrix")?;
        }
        if let Some(Batch { count, x, y, w }) = product.batch {
            let distances = match kind {
                Kind::Forward => [w, x, y],
                Kind::ByInput => [w, y, x],
                Kind::ByWeight => [x, y, w],
            };
            for (&layout, distance) in plan.layouts.iter().zip(distances) {
                let set = |attribute, value: *const c_void, size| {
                    let status =
                        unsafe { sys::cublasLtMatrixLayoutSetAttribute(layout, attribute, value, size) };
                    self.check(status, "describing a matrix")
                };
                set(LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, pointer(&(count as i32)), 4)?;
                let distance = distance as i64;
                set(LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, pointer(&distance), 8)?;
            }
        }
        let mut preference = std::ptr::null_mut();
        self.check(unsafe { sys::cublasLtMatmulPreferenceCreate(&mut preference) }, "choosing an algorithm")?;
        let prefer = |attribute, value: *const c_void, size| {
            let status =
                unsafe { sys::cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, size) };
            self.check(status, "choosing an algorithm")
        };
        // Parts of a batch start at multiples of 16 bytes if widths are multiples of 8 and channels of 4, as after a
        // squeeze. Parts of other buffers may start anywhere.
        let (workspace, alignment) = (WORKSPACE as u64, if product.aligned { 16u32 } else { 4 });
        prefer(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, pointer(&workspace), 8)?;
        // Split sums are accumulated in memory, in f32 and in order; the other schemes round intermediate
        // sums, or have no defined order.
        let reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        prefer(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, pointer(&reduction), 4)?;
        for attribute in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            prefer(attribute, pointer(&alignment), 4)?;
        }
        let [a, b, d] = plan.layouts;
        // SAFETY: plain numbers, for which zero bytes are valid.
        let mut found: sys::cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
        let mut count = 0;
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                plan.description,
                a,
                b,
                d,
                d,
                preference,
                1,
                &mut found,
                &mut count,
            )
        };
        let _ = unsafe { sys::cublasLtMatmulPreferenceDestroy(preference) };
        plan.algorithm = found.algo;
        let usable = count == 1 && found.state == Status::CUBLAS_STATUS_SUCCESS;
        Ok((status == Status::CUBLAS_STATUS_SUCCESS && usable).then_some(plan))
    }
}

impl Drop for Plan {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: created by the library in `choose`, null if that did not happen, and no longer used.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = sys::cublasLtMatrixLayoutDestroy(layout);
            }
            if !self.description.is_null() {
                let _ = sys::cublasLtMatmulDescDestroy(self.description);
            }
        }
    }
}

impl Drop for Products {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.context.enter().is_err() {
            return;
        }
        self.plans.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
        if !self.handle.is_null() {
            // SAFETY: created in `new` and owned by this value alone.
            let _ = unsafe { sys::cublasLtDestroy(self.handle) };
        }
    }
}
