//! What a type asks of a deserializer, and what it gets.

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{Refused, Walk};

/// Texts that types commonly parse.
const TEXTS: [&str; 9] = [
    "a",
    "1",
    "2000-01-01T00:00:00Z",
    "2000-01-01T00:00:00",
    "2000-01-01",
    "00:00:00",
    "00000000-0000-4000-8000-000000000001",
    "127.0.0.1",
    "http://a.example/",
];
/// Bytes of lengths that types commonly take.
const BYTES: [&[u8]; 7] = [&[], &[0; 16], &[0; 4], &[0; 8], &[0; 12], &[0; 20], &[0; 32]];

macro_rules! plain {
    ($($method:ident $visit:ident $kind:literal $values:expr;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let value = self.plain::<_, V>($kind, &$values)?;
            visitor.$visit(value)
        }
    )* };
}

impl<'de> Deserializer<'de> for &mut Walk {
    type Error = Refused;

    plain! {
        deserialize_bool visit_bool "bool" [false, true];
        deserialize_i8 visit_i8 "i8" [1, 0];
        deserialize_i16 visit_i16 "i16" [1, 0];
        deserialize_i32 visit_i32 "i32" [1, 0];
        deserialize_i64 visit_i64 "i64" [1, 0];
        deserialize_i128 visit_i128 "i128" [1, 0];
        deserialize_u8 visit_u8 "u8" [1, 0];
        deserialize_u16 visit_u16 "u16" [1, 0];
        deserialize_u32 visit_u32 "u32" [1, 0];
        deserialize_u64 visit_u64 "u64" [1, 0];
        deserialize_u128 visit_u128 "u128" [1, 0];
        deserialize_f32 visit_f32 "f32" [1.0, 0.0];
        deserialize_f64 visit_f64 "f64" [1.0, 0.0];
        deserialize_char visit_char "char" ['a', '1'];
        deserialize_str visit_str "text" TEXTS;
        deserialize_string visit_str "text" TEXTS;
        deserialize_bytes visit_bytes "bytes" BYTES;
        deserialize_byte_buf visit_bytes "bytes" BYTES;
        deserialize_identifier visit_str "identifier" TEXTS;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.plain::<_, V>("any", &[0, 1, 2, 3, 4])? {
            0 => visitor.visit_unit(),
            1 => visitor.visit_u64(1),
            2 => visitor.visit_str("a"),
            3 => visitor.visit_seq(Parts { walk: self, left: 0 }),
            _ => visitor.visit_map(Parts { walk: self, left: 0 }),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.ask("ignored")?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.ask("option")?;
        if self.brief > 0 {
            return visitor.visit_none();
        }
        self.deeper(|walk| visitor.visit_some(walk))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.ask("unit")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.ask("unit struct")?;
        self.ask(name)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.ask("newtype")?;
        self.named::<V::Value, _>(name, |walk, _| visitor.visit_newtype_struct(walk))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.ask("list")?;
        let left = usize::from(self.brief == 0);
        self.deeper(|walk| visitor.visit_seq(Parts { walk, left }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.ask("tuple")?;
        self.note(&len.to_string());
        self.deeper(|walk| visitor.visit_seq(Parts { walk, left: len }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.ask("tuple struct")?;
        self.note(&len.to_string());
        self.named::<V::Value, _>(name, |walk, _| visitor.visit_seq(Parts { walk, left: len }))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.ask("map")?;
        let left = usize::from(self.brief == 0);
        self.deeper(|walk| visitor.visit_map(Parts { walk, left }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.ask("struct")?;
        for field in fields {
            self.note(field);
        }
        let left = fields.len();
        self.named::<V::Value, _>(name, |walk, _| visitor.visit_seq(Parts { walk, left }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.ask("enum")?;
        for variant in variants {
            self.note(variant);
        }
        self.named::<V::Value, _>(name, |walk, again| {
            let variant = walk.variant::<V::Value>(variants.len() as u32, again)?;
            walk.note(&variant.to_string());
            let value = visitor.visit_enum(Variant { walk: &mut *walk, variant })?;
            walk.has_end::<V::Value>(variant);
            Ok(value)
        })
    }

    /// As the compact formats say it; the same whatever format is written.
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a list, the fields of a struct, or the entries of a map.
struct Parts<'w> {
    walk: &'w mut Walk,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.walk).map(Some)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(&mut *self.walk)
    }
}

/// One variant of an enum.
struct Variant<'w> {
    walk: &'w mut Walk,
    variant: u32,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refused> {
        let index: U32Deserializer<Refused> = self.variant.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        self.walk.ask("unit variant")
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        self.walk.ask("newtype variant")?;
        seed.deserialize(self.walk)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.walk.ask("tuple variant")?;
        self.walk.note(&len.to_string());
        visitor.visit_seq(Parts { walk: self.walk, left: len })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.walk.ask("struct variant")?;
        for field in fields {
            self.walk.note(field);
        }
        visitor.visit_seq(Parts { walk: self.walk, left: fields.len() })
    }
}

impl Error for Refused {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self::default()
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field) }
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type refused what it was given")
    }
}
