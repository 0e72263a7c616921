//! What most verbs need: the config with the command line's places over it, the opened networks, the gallery and its key.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Failure, Places, Result, code};
use crate::access::Thresholds;
use crate::config::{self, Config};
use crate::gallery::{Gallery, GalleryError, SealingKey};
use crate::inference::manifest::Manifest;
use crate::system::secret::SecretError;
use crate::vision::quality;
use crate::vision::stack::Stack;

/// The name of the gallery's sealing key among the secrets.
pub(crate) const GALLERY_KEY: &str = "gallery.key";
/// The name of the grant-signing key among the secrets.
pub(crate) const GRANT_KEY: &str = "grant.key";

/// The config in force.
pub(crate) struct Context {
    pub(crate) config: Config,
}

impl Context {
    /// Reads the config. A path that was asked for must be there; the default one may be absent, and then the defaults hold.
    pub(crate) fn load(places: &Places) -> Result<Self> {
        let path = places.config.clone().unwrap_or_else(|| PathBuf::from(config::DEFAULT_PATH));
        let mut config = if places.config.is_some() || path.exists() {
            Config::load(&path).map_err(|error| Failure::new(code::CONFIG, error))?
        } else {
            Config::default()
        };
        if let Some(folder) = &places.state_dir {
            config.state_dir.clone_from(folder);
        }
        if let Some(folder) = &places.secrets_dir {
            config.secrets_dir.clone_from(folder);
        }
        if let Some(folder) = &places.models_dir {
            config.models.dir = Some(folder.clone());
        }
        if let Some(pack) = &places.pack {
            config.models.pack.clone_from(pack);
        }
        if let Some(backend) = &places.backend {
            config.inference.backend = backend.parse().map_err(|error| Failure::new(code::USAGE, format!("--backend: {error}")))?;
        }
        Ok(Self { config })
    }

    pub(crate) fn manifest(&self) -> Result<Manifest> {
        self.config.manifest().map_err(|error| Failure::new(code::CONFIG, error))
    }

    pub(crate) fn models_dir(&self) -> PathBuf {
        self.config.models_dir()
    }

    /// Opens the pack's networks.
    pub(crate) fn open_stack(&self) -> Result<Stack> {
        let manifest = self.manifest()?;
        Stack::open(&manifest, &self.config.models.pack, &self.models_dir(), &self.config.inference).map_err(Failure::unavailable)
    }

    pub(crate) fn quality(&self) -> &quality::Settings {
        &self.config.pipeline.quality
    }

    /// The pack's thresholds with the config's over them.
    pub(crate) fn thresholds(&self, stack: &Stack) -> Thresholds {
        let pack = stack.thresholds;
        Thresholds { matching: pack.matching, margin: pack.margin, liveness: pack.liveness }.with(&self.config.access)
    }

    pub(crate) fn sealing_key(&self) -> Result<SealingKey> {
        SealingKey::read(GALLERY_KEY, &self.config.secrets_dir).map_err(|error| match error {
            GalleryError::Secret(SecretError::Unreadable { .. }) => {
                Failure::new(code::PERMISSION, format!("{error}; `faceid keygen` makes one"))
            }
            _ => Failure::new(code::PERMISSION, error),
        })
    }

    pub(crate) fn gallery_dir(&self) -> PathBuf {
        self.config.state_dir.join("gallery")
    }

    /// The gallery for reading: a running daemon is not disturbed.
    pub(crate) fn open_gallery_to_read(&self, stack: &Stack) -> Result<Gallery> {
        let key = self.sealing_key()?;
        let (model, dimension) = (stack.embedder.model(), stack.embedder.dimension());
        Gallery::open_to_read(&self.gallery_dir(), &key, model, dimension).map_err(gallery_failure)
    }

    /// The gallery for changing; made where there is none.
    pub(crate) fn open_gallery(&self, stack: &Stack) -> Result<Arc<Gallery>> {
        let key = self.sealing_key()?;
        let (model, dimension) = (stack.embedder.model(), stack.embedder.dimension());
        Gallery::create_or_open(&self.config.gallery, &self.gallery_dir(), &key, model, dimension).map(Arc::new).map_err(gallery_failure)
    }
}

/// A gallery's error with the exit code it deserves.
pub(super) fn gallery_failure(error: GalleryError) -> Failure {
    Failure::new(super::gallery::exit_code(&error), error)
}

