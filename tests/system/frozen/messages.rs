//! What programs of earlier releases send and expect: fields, values and methods. A file says what they are, and only ever grows.
//!
//! A program skips fields that it does not know, so a new field harms no earlier release. A field that is removed, or that gets
//! another number or type, does.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

use crate::frozen::only_grows;
use crate::workspace::root;

/// One line for each field, each value of an enumeration, and each method.
fn lines(files: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in &files.file {
        file.message_type.iter().for_each(|message| of_message(file.package(), message, &mut lines));
        file.enum_type.iter().for_each(|values| of_enumeration(file.package(), values, &mut lines));
        file.service.iter().for_each(|service| of_service(file.package(), service, &mut lines));
    }
    lines
}

fn of_message(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let kind = if field.type_name().is_empty() {
            field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase()
        } else {
            field.type_name().trim_start_matches('.').to_owned()
        };
        let many = if field.label().as_str_name() == "LABEL_REPEATED" { "repeated " } else { "" };
        lines.insert(format!("{name}: field {} is {many}{kind} {}", field.number(), field.name()));
    }
    message.nested_type.iter().for_each(|nested| of_message(&name, nested, lines));
    message.enum_type.iter().for_each(|values| of_enumeration(&name, values, lines));
}

fn of_enumeration(scope: &str, values: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &values.value {
        lines.insert(format!("{scope}.{}: value {} is {}", values.name(), value.number(), value.name()));
    }
}

fn of_service(scope: &str, service: &ServiceDescriptorProto, lines: &mut BTreeSet<String>) {
    let types = |is_stream: bool, name: &str| {
        format!("{}{}", if is_stream { "stream " } else { "" }, name.trim_start_matches('.'))
    };
    for method in &service.method {
        let request = types(method.client_streaming(), method.input_type());
        let answer = types(method.server_streaming(), method.output_type());
        lines.insert(format!("{scope}.{}: method {} ({request}) -> {answer}", service.name(), method.name()));
    }
}

#[test]
fn earlier_releases_are_understood() {
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("the descriptors of this program");
    let harm = "programs of an earlier release send or expect these";
    only_grows(&root().join("proto/frozen.txt"), &lines(&files), harm);
}

/// A field with another number, type or name is another line.
#[test]
fn a_change_of_a_field_is_noticed() {
    let before = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("the descriptors of this program");
    let hello = |files: &mut FileDescriptorSet, change: fn(&mut prost_types::FieldDescriptorProto)| {
        let messages = files.file.iter_mut().flat_map(|file| &mut file.message_type);
        let hello = messages.into_iter().find(|message| message.name() == "Hello").expect("the hello");
        change(&mut hello.field[0]);
    };
    for change in [
        (|field| field.number = Some(99)) as fn(&mut prost_types::FieldDescriptorProto),
        |field| field.name = Some("release".to_owned()),
        |field| field.set_type(prost_types::field_descriptor_proto::Type::Bytes),
        |field| field.set_label(prost_types::field_descriptor_proto::Label::Repeated),
    ] {
        let mut after = before.clone();
        hello(&mut after, change);
        let gone: Vec<String> = lines(&before).difference(&lines(&after)).cloned().collect();
        assert_eq!(gone, ["isthmus.mesh.v1.Hello: field 1 is string version"]);
    }
}
