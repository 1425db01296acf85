//! Signatures by the platform's own cryptography (WebCrypto), whose keys stay outside of wasm.

use js_sys::{Array, JSON, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{CryptoKey, SubtleCrypto};

use super::Platform;
use crate::host::{SigningAlgorithm, SigningKey, VerifyingAlgorithm, VerifyingKey};

impl Platform {
    /// Signs with a key, which is imported and tried first if it has not signed before. `Err` is whatever JavaScript has thrown,
    /// whose text could hold parts of the key.
    pub(super) async fn signature(&self, key: &SigningKey, message: &str) -> Result<Vec<u8>, JsValue> {
        let known =
            self.keys.borrow().iter().find(|(jwk, _)| *jwk == key.jwk).map(|(_, known)| known.clone());
        let imported = match known {
            Some(known) => known,
            None => {
                let imported = self.import(key).await?;
                self.keys.borrow_mut().push((key.jwk.clone(), imported.clone()));
                imported
            }
        };
        self.sign_with(key.algorithm, &imported, message).await
    }

    /// The private key, once the public half has verified what it signs: platforms differ in whether they look at both.
    async fn import(&self, key: &SigningKey) -> Result<CryptoKey, JsValue> {
        const MESSAGE: &str = "whether both halves belong together";
        let subtle = self.subtle()?;
        let algorithm = parameters(key.algorithm)?;
        let import = async |jwk: &Object, usage: &str| {
            let usages = Array::of1(&usage.into());
            let key = subtle.import_key_with_object("jwk", jwk, &algorithm, false, &usages)?;
            Ok::<CryptoKey, JsValue>(self.wait_for(key).await?.unchecked_into())
        };
        let jwk: Object = JSON::parse(&key.jwk)?.unchecked_into();
        let private = import(&jwk, "sign").await?;
        Reflect::delete_property(&jwk, &"d".into())?;
        let public = import(&jwk, "verify").await?;

        let signature = self.sign_with(key.algorithm, &private, MESSAGE).await?;
        let (signature, message) = (Uint8Array::from(&*signature), Uint8Array::from(MESSAGE.as_bytes()));
        let verified = subtle.verify_with_object_and_buffer_source_and_buffer_source(
            &algorithm, &public, &signature, &message,
        )?;
        if self.wait_for(verified).await?.is_truthy() { Ok(private) } else { Err(JsValue::UNDEFINED) }
    }

    /// Whether a key has signed a message. `Err`: it is no key, or JavaScript has thrown something else.
    pub(super) async fn has_signed(
        &self,
        key: &VerifyingKey,
        message: &str,
        signature: &[u8],
    ) -> Result<bool, JsValue> {
        let (subtle, algorithm) = (self.subtle()?, verifying_parameters(key.algorithm)?);
        let jwk: Object = JSON::parse(&key.jwk)?.unchecked_into();
        let usages = Array::of1(&"verify".into());
        let imported = subtle.import_key_with_object("jwk", &jwk, &algorithm, false, &usages)?;
        let imported: CryptoKey = self.wait_for(imported).await?.unchecked_into();
        let (signature, message) = (Uint8Array::from(signature), Uint8Array::from(message.as_bytes()));
        let verified = subtle.verify_with_object_and_buffer_source_and_buffer_source(
            &algorithm, &imported, &signature, &message,
        )?;
        Ok(self.wait_for(verified).await? == JsValue::TRUE)
    }

    async fn sign_with(
        &self,
        algorithm: SigningAlgorithm,
        key: &CryptoKey,
        message: &str,
    ) -> Result<Vec<u8>, JsValue> {
        let message = Uint8Array::from(message.as_bytes());
        let signing: Promise =
            self.subtle()?.sign_with_object_and_buffer_source(&parameters(algorithm)?, key, &message)?;
        Ok(Uint8Array::new(&self.wait_for(signing).await?).to_vec())
    }

    fn subtle(&self) -> Result<SubtleCrypto, JsValue> {
        Ok(self.global.crypto()?.subtle())
    }
}

/// How WebCrypto calls it. Its ECDSA signatures have the form that JWS wants.
fn parameters(algorithm: SigningAlgorithm) -> Result<Object, JsValue> {
    verifying_parameters(match algorithm {
        SigningAlgorithm::EdDsa => VerifyingAlgorithm::EdDsa,
        SigningAlgorithm::Es256 => VerifyingAlgorithm::Es256,
    })
}

fn verifying_parameters(algorithm: VerifyingAlgorithm) -> Result<Object, JsValue> {
    let members: &[(&str, &str)] = match algorithm {
        VerifyingAlgorithm::EdDsa => &[("name", "Ed25519")],
        VerifyingAlgorithm::Es256 => &[("name", "ECDSA"), ("namedCurve", "P-256"), ("hash", "SHA-256")],
        VerifyingAlgorithm::Rs256 => &[("name", "RSASSA-PKCS1-v1_5"), ("hash", "SHA-256")],
    };
    let parameters = Object::new();
    for (name, value) in members {
        Reflect::set(&parameters, &(*name).into(), &(*value).into())?;
    }
    Ok(parameters)
}
