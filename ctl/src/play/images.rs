//! The images of a pod, by pull policy.

use coracle_cri_api::runtime_v1::Image;
use thiserror::Error;

use super::super::client::{Client, ClientError};
use super::super::manifest::ImagePullPolicy;
use super::super::plan::{ContainerPlan, ImageUser};
use super::voice::Voice;

/// Why a container's image is not there.
#[derive(Debug, Error)]
pub(crate) enum EnsureError {
    #[error("container {container}: image {image:?} is not here, and imagePullPolicy is Never")]
    Never { container: String, image: String },
    #[error("container {container}: image {image:?} was pulled and is not here")]
    Vanished { container: String, image: String },
    #[error("container {container}")]
    Client { container: String, source: ClientError },
}

/// An image that is here.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub(super) id: String,
    pub(super) user: ImageUser,
}

/// Pulls the container's image where its policy says so.
pub(super) async fn ensure(
    client: &Client,
    plan: &ContainerPlan,
    voice: &Voice,
) -> Result<Present, EnsureError> {
    let (container, image) = (plan.name.clone(), plan.image.clone());
    let failed = |source| EnsureError::Client {
        container: container.clone(),
        source,
    };
    if plan.pull_policy != ImagePullPolicy::Always
        && let Some(found) = client.image_status(&image).await.map_err(failed)?
    {
        return Ok(present(found));
    }
    if plan.pull_policy == ImagePullPolicy::Never {
        return Err(EnsureError::Never { container, image });
    }
    voice.say(&format!("pulling image {image}"));
    let id = client.pull_image(&image, None).await.map_err(failed)?;
    let found = client.image_status(&id).await.map_err(failed)?;
    found
        .map(present)
        .ok_or(EnsureError::Vanished { container, image })
}

fn present(image: Image) -> Present {
    let user = match image.uid {
        Some(uid) => ImageUser::Id(uid.value),
        None if image.username.is_empty() => ImageUser::Id(0),
        None => ImageUser::Name(image.username),
    };
    Present { id: image.id, user }
}
