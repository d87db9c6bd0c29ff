//! t
#[test]
fn t() { std::fs::write("/tmp/schema.json", reconcile_spec::json_schema()).unwrap(); 
#[derive(Debug)]
enum R { U, B(bool), I(u64), F(f64), S(String), Q(Vec<serde_saphyr::Spanned<R>>), M(Vec<(serde_saphyr::Spanned<String>, serde_saphyr::Spanned<R>)>) }
impl<'de> serde::Deserialize<'de> for R { fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
 struct V; impl<'de> serde::de::Visitor<'de> for V { type Value = R; fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result { f.write_str("x") }
 fn visit_unit<E>(self) -> Result<R, E> { Ok(R::U) }
 fn visit_bool<E>(self, b: bool) -> Result<R, E> { Ok(R::B(b)) }
 fn visit_u64<E>(self, b: u64) -> Result<R, E> { Ok(R::I(b)) }
 fn visit_f64<E>(self, b: f64) -> Result<R, E> { Ok(R::F(b)) }
 fn visit_str<E>(self, b: &str) -> Result<R, E> { Ok(R::S(b.to_owned())) }
 fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut a: A) -> Result<R, A::Error> { let mut v = vec![]; while let Some(x) = a.next_element()? { v.push(x) } Ok(R::Q(v)) }
 fn visit_map<A: serde::de::MapAccess<'de>>(self, mut a: A) -> Result<R, A::Error> { let mut v = vec![]; while let Some(k) = a.next_key::<serde_saphyr::Spanned<String>>()? { let x = a.next_value()?; v.push((k,x)) } Ok(R::M(v)) }
 } d.deserialize_any(V) } }
let o = serde_saphyr::options! { strict_booleans: true, duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough, with_snippet: false };
let r: Result<Vec<serde_saphyr::Spanned<R>>, _> = serde_saphyr::from_multiple_with_options("é: 1.10 # c\nb: \"on\"\nb: on\nc: &x [1,   2 , 0x1f]\nd: *x\n---\nk:\n  - a: |\n      foo\n      bar\n    b: \n5: yes\n", o);
println!("{r:#?}");
 }
