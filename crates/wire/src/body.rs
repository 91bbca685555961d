//! Requests and responses of every API as one type each.

use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::messages::every::for_every_api;
use crate::messages::{self, ApiKey};

macro_rules! bodies {
    ($($name:ident $request:ident $response:ident;)*) => {
        bodies!(@enum "A request of any API." RequestBody, $($name $request;)*);
        bodies!(@enum "A response of any API." ResponseBody, $($name $response;)*);
    };
    (@enum $doc:literal $body:ident, $($name:ident $message:ident;)*) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq)]
        pub enum $body {
            $($name(messages::$message),)*
        }

        impl $body {
            pub fn api_key(&self) -> ApiKey {
                match self {
                    $(Self::$name(_) => ApiKey::$name,)*
                }
            }

            /// An error if the schema does not have the version, whatever is served.
            pub fn decode(
                api_key: ApiKey,
                version: i16,
                r: &mut Reader,
            ) -> Result<Self, DecodeError> {
                Ok(match api_key {
                    $(ApiKey::$name => Self::$name(messages::$message::decode(r, version)?),)*
                })
            }

            pub fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
                match self {
                    $(Self::$name(body) => body.encode(w, version),)*
                }
            }
        }

        $(impl From<messages::$message> for $body {
            fn from(body: messages::$message) -> $body {
                $body::$name(body)
            }
        })*
    };
}

for_every_api!(bodies);
