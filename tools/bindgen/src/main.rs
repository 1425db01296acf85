//! `bindgen IN.wasm OUT_DIR`: writes the JavaScript border of the compiled Worker.
//!
//! The `wasm-bindgen` program, reduced to the one way this project uses it. The "web" target is the one
//! whose module can be instantiated again after a trap (`__wbg_reset_state`).

use std::{env, error::Error};

use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(input), Some(out_dir)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bindgen IN.wasm OUT_DIR".into());
    };
    Bindgen::new()
        .web(true)?
        .reset_state_function(true)
        .omit_default_module_path(true)
        .typescript(true)
        .remove_producers_section(true)
        .input_path(input)
        .out_name("cloakroom")
        .generate(out_dir)?;
    Ok(())
}
