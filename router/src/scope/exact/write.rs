//! From a value to a tree.

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use super::{Tree, Unfit};

/// Makes trees.
pub(super) struct Writer;

macro_rules! integers {
    ($($method:ident $number:ident)*) => {$(
        fn $method(self, value: $number) -> Result<Tree, Unfit> {
            Ok(Tree::Int(value.into(), stringify!($number)))
        }
    )*};
}

fn named(name: &'static str, tree: Tree) -> Tree {
    Tree::Named(name, Box::new(tree))
}

/// A variant as JSON has it, since serde itself reads it so in untagged, tagged and flattened values.
fn variant(name: &'static str, variant: &'static str, tree: Tree) -> Tree {
    named(name, Tree::Map(vec![(Tree::Text(variant.to_owned()), tree)]))
}

impl Serializer for Writer {
    type Ok = Tree;
    type Error = Unfit;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    integers! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64
    }

    fn serialize_u128(self, value: u128) -> Result<Tree, Unfit> {
        Ok(i128::try_from(value).map_or(Tree::Big(value), |value| Tree::Int(value, "u128")))
    }

    fn serialize_bool(self, value: bool) -> Result<Tree, Unfit> {
        Ok(Tree::Bool(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Tree, Unfit> {
        // As the number that it is, so that the way back rounds nothing.
        Ok(Tree::Float(f64::from(value).to_bits(), "f32"))
    }

    fn serialize_f64(self, value: f64) -> Result<Tree, Unfit> {
        Ok(Tree::Float(value.to_bits(), "f64"))
    }

    fn serialize_char(self, value: char) -> Result<Tree, Unfit> {
        Ok(Tree::Char(value))
    }

    fn serialize_str(self, value: &str) -> Result<Tree, Unfit> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Tree, Unfit> {
        Ok(Tree::Bytes(value.to_owned()))
    }

    fn serialize_none(self) -> Result<Tree, Unfit> {
        Ok(Tree::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, Unfit> {
        Ok(Tree::Some(Box::new(Tree::of(value)?)))
    }

    fn serialize_unit(self) -> Result<Tree, Unfit> {
        Ok(Tree::Unit)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<Tree, Unfit> {
        Ok(named(name, Tree::Unit))
    }

    fn serialize_unit_variant(self, name: &'static str, _: u32, variant: &'static str) -> Result<Tree, Unfit> {
        Ok(named(name, Tree::Text(variant.to_owned())))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<Tree, Unfit> {
        Ok(named(name, Tree::of(value)?))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        of: &'static str,
        value: &T,
    ) -> Result<Tree, Unfit> {
        Ok(variant(name, of, Tree::of(value)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items, Unfit> {
        Ok(Items { kind: Kind::Plain, items: Vec::new() })
    }

    fn serialize_tuple(self, _: usize) -> Result<Items, Unfit> {
        Ok(Items { kind: Kind::Plain, items: Vec::new() })
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Items, Unfit> {
        Ok(Items { kind: Kind::Struct(name), items: Vec::new() })
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items, Unfit> {
        Ok(Items { kind: Kind::Variant(name, variant), items: Vec::new() })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Unfit> {
        Ok(Entries { kind: Kind::Plain, key: None, pairs: Vec::new() })
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Entries, Unfit> {
        Ok(Entries { kind: Kind::Struct(name), key: None, pairs: Vec::new() })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries, Unfit> {
        Ok(Entries { kind: Kind::Variant(name, variant), key: None, pairs: Vec::new() })
    }
}

/// What the parts belong to.
enum Kind {
    Plain,
    Struct(&'static str),
    Variant(&'static str, &'static str),
}

impl Kind {
    fn of(self, tree: Tree) -> Tree {
        match self {
            Self::Plain => tree,
            Self::Struct(name) => named(name, tree),
            Self::Variant(name, of) => variant(name, of, tree),
        }
    }
}

/// The items of a sequence or a tuple.
pub(super) struct Items {
    kind: Kind,
    items: Vec<Tree>,
}

impl SerializeSeq for Items {
    type Ok = Tree;
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.items.push(Tree::of(value)?);
        Ok(())
    }

    fn end(self) -> Result<Tree, Unfit> {
        Ok(Tree::Seq(self.items))
    }
}

macro_rules! items {
    ($($kind:ident $method:ident)*) => {$(
        impl $kind for Items {
            type Ok = Tree;
            type Error = Unfit;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
                self.items.push(Tree::of(value)?);
                Ok(())
            }

            fn end(self) -> Result<Tree, Unfit> {
                Ok(self.kind.of(Tree::Tuple(self.items)))
            }
        }
    )*};
}

items!(SerializeTuple serialize_element SerializeTupleStruct serialize_field SerializeTupleVariant serialize_field);

/// The entries of a map or a struct.
pub(super) struct Entries {
    kind: Kind,
    key: Option<Tree>,
    pairs: Vec<(Tree, Tree)>,
}

impl SerializeMap for Entries {
    type Ok = Tree;
    type Error = Unfit;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unfit> {
        self.key = Some(Tree::of(key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        let key = self.key.take().ok_or_else(|| Unfit::custom("a value without a key"))?;
        self.pairs.push((key, Tree::of(value)?));
        Ok(())
    }

    fn end(self) -> Result<Tree, Unfit> {
        Ok(Tree::Map(self.pairs))
    }
}

macro_rules! entries {
    ($($kind:ident)*) => {$(
        impl $kind for Entries {
            type Ok = Tree;
            type Error = Unfit;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Unfit> {
                self.pairs.push((Tree::Text(key.to_owned()), Tree::of(value)?));
                Ok(())
            }

            fn end(self) -> Result<Tree, Unfit> {
                Ok(self.kind.of(Tree::Map(self.pairs)))
            }
        }
    )*};
}

entries!(SerializeStruct SerializeStructVariant);
