//! What most verbs need: the config with the command line's places over it, the opened networks, the gallery and its key.

use std::path::{Path, PathBuf};

use super::editor::Editor;
use super::{Failure, Places, Result, code};
use crate::access::{SiteThreshold, Thresholds};
use crate::config::{self, Config};
use crate::gallery::{Gallery, GalleryError, SealingKey};
use crate::inference::manifest::{Manifest, Role};
#[cfg(feature = "demo-broker")]
use crate::inference::packs::{self, FileState};
use crate::system::owner;
use crate::types::{ModelId, Score};
use crate::vision::quality;
use crate::vision::stack::Stack;

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
            let mut config = Config::default();
            // Who has no config yet has fetched nothing either.
            config.models.pack = config::BUILTIN_PACK.to_owned();
            config
        };
        if let Some(folder) = &places.state_dir {
            config.state_dir.clone_from(folder);
            config.gallery.dir = folder.join("gallery");
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
        if let Some(backend) = places.backend {
            config.inference.backend = backend;
        }
        if let Some(precision) = places.precision {
            config.inference.precision = precision;
        }
        Ok(Self { config })
    }

    /// As root, becomes the owner of a folder that is about to be written: see [`owner`].
    pub(super) fn become_owner_of(folder: &Path) -> Result<()> {
        owner::become_owner_of(folder).map_err(|error| {
            let text =
                format!("{} is another user's, whose rights cannot be taken: {error}; run this as that user", folder.display());
            Failure::new(code::PERMISSION, text)
        })
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

    /// The same at a door where so many people are enrolled: the threshold of a match is that of the pack's table.
    pub(crate) fn thresholds_at(&self, stack: &Stack, people: usize) -> Thresholds {
        Thresholds { matching: self.site(stack).at(people).0, ..self.thresholds(stack) }
    }

    /// The same without opening the networks.
    pub(crate) fn site_unopened(&self) -> Result<SiteThreshold> {
        let manifest = self.manifest()?;
        let pack = manifest.pack_at(&self.config.models.pack, self.config.inference.precision).map_err(Failure::unavailable)?;
        match &manifest.model(&pack.embedder).map_err(Failure::unavailable)?.role {
            Role::Embedder { threshold, .. } => {
                Ok(SiteThreshold::new(threshold.score, threshold.visits.clone(), &self.config.access))
            }
            _ => Err(Failure::data(format!("{} is no embedder", pack.embedder))),
        }
    }

    /// The threshold of a match by the number of people enrolled.
    pub(crate) fn site(&self, stack: &Stack) -> SiteThreshold {
        SiteThreshold::new(stack.thresholds.matching, stack.visits.clone(), &self.config.access)
    }

    /// The least score of a match with templates of `model`, as the manifest states it or the config says over it.
    pub(crate) fn match_threshold(&self, model: &ModelId) -> Result<Score> {
        if let Some(score) = self.config.access.match_threshold {
            return Ok(score);
        }
        match &self.manifest()?.model(model).map_err(Failure::unavailable)?.role {
            Role::Embedder { threshold, .. } => Ok(threshold.score),
            _ => Err(Failure::data(format!("{model} is no embedder"))),
        }
    }

    pub(crate) fn sealing_key(&self) -> Result<SealingKey> {
        SealingKey::read(&self.config.gallery.key, &self.config.secrets_dir).map_err(|error| Failure::new(code::PERMISSION, error))
    }

    /// The gallery for reading, of the pack's embedder: a running daemon is not disturbed.
    pub(crate) fn open_gallery_to_read(&self, stack: &Stack) -> Result<Gallery> {
        let gallery = Gallery::open_read_only(&self.config.gallery, &self.sealing_key()?).map_err(gallery_failure)?;
        let stored = gallery.snapshot().stats();
        if stored.model != *stack.embedder.model() || stored.dimension != stack.embedder.dimension() {
            let text = format!(
                "gallery {} holds templates of {} ({}-D), pack `{}` embeds with {}: choose the gallery's pack with --pack, or enrol anew",
                gallery.path().display(),
                stored.model,
                stored.dimension,
                stack.pack,
                stack.embedder.model()
            );
            return Err(Failure::data(text));
        }
        Ok(gallery)
    }

    /// The gallery for changing; made where there is none.
    pub(super) fn open_gallery(&self, stack: &Stack) -> Result<Editor> {
        let key = self.sealing_key()?;
        Editor::open(self, &key, Some((stack.embedder.model(), stack.embedder.dimension())))
    }

    #[cfg(feature = "demo-broker")]
    /// The pack to show a demo with: the one that was asked for, otherwise the first one whose files are all there.
    pub(crate) fn ready_pack(&self, asked: Option<&str>) -> Result<String> {
        if let Some(pack) = asked {
            return Ok(pack.to_owned());
        }
        let (manifest, dir) = (self.manifest()?, self.models_dir());
        let is_ready = |pack: &str| {
            manifest.pack_at(pack, self.config.inference.precision).is_ok_and(|pack| {
                let ids: Vec<_> = pack.models().cloned().collect();
                packs::verify(&manifest, &ids, &dir).is_ok_and(|rows| rows.iter().all(|row| row.file_state == FileState::Present))
            })
        };
        let wanted = self.config.models.pack.clone();
        let names = std::iter::once(wanted).chain(manifest.packs.keys().cloned());
        names.into_iter().find(|name| is_ready(name)).ok_or_else(|| {
            Failure::unavailable(format!(
                "no model pack is complete in {}: `faceid models list` shows the packs, `faceid models fetch PACK` brings one",
                dir.display()
            ))
        })
    }
}

/// A gallery's error with the exit code it deserves.
pub(super) fn gallery_failure(error: GalleryError) -> Failure {
    Failure::new(error.exit_code(), error)
}
